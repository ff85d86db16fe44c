"""What listens, and who can reach it: exact sets, so that whatever a change adds shows up here."""

import asyncio
import re

import pytest
from infra.tools import live_slot
from waiting import wait_until

# A server that got its address by DHCP listens for the renewal.
DHCP = {"udp 68", "udp 546"}
# Sockets of systemd, D-Bus and udev, which every Debian has, and of sshd for systemd-nspawn's host.
SYSTEM = (
    "/run/systemd/",
    "/run/user/",
    "/run/dbus/",
    "/run/udev/",
    "/run/ssh-unix-local/",
    "/run/host/unix-export/",
    "@",
)


def listening(host):
    """{'tcp 0.0.0.0:22 sshd', ...}"""
    found = set()
    for line in host.check_output("ss -H -ltunp").splitlines():
        protocol, _, _, _, local, _, *process = line.split()
        name = re.search(r'\("([^"]+)"', " ".join(process))
        if f"{protocol} {local.rsplit(':', 1)[1]}" not in DHCP:
            found.add(f"{protocol} {local} {name[1] if name else '?'}")
    return found


def expected(settings):
    groups = settings["group_names"]

    def everywhere(protocol, port, name):
        return {f"{protocol} {address}:{port} {name}" for address in ("0.0.0.0", "[::]")}

    allowed = everywhere("tcp", settings["base_ssh_port"], "sshd")
    if "edge" in groups:
        allowed |= everywhere("tcp", settings["site_http_port"], "nginx")
        allowed |= everywhere("tcp", settings["site_https_port"], "nginx")
        # HTTP/3; a balancer passes no client's address on over UDP
        if not (settings["nginx_trusted_proxies"] or settings["nginx_proxy_protocol"]):
            allowed |= everywhere("udp", settings["site_https_port"], "nginx")
    if "redis" in groups:
        allowed |= {
            f"tcp {address}:{settings['redis_port']} redis-server" for address in settings["redis_listen"]
        }
    if "database" in groups:
        addresses = [address for address in settings["postgresql_listen_addresses"].split(",") if address]
        allowed |= {f"tcp {address}:{settings['postgresql_port']} postgres" for address in addresses}
    return allowed


def test_exactly_the_named_sockets_listen(host, settings):
    assert listening(host) == expected(settings)


def test_exactly_the_named_unix_sockets_listen(host, settings):
    """A socket's owner, group and mode are the application's only lock: behind it there is no password."""
    groups = settings["group_names"]
    allowed = set()
    if "web" in groups:
        app, web = settings["app_user"], settings["site_web_group"]
        slot = f"{settings['app_runtime_directory']}/{live_slot(host, settings)}"
        allowed.add(f"{slot}/web.sock {app}:{web} 660")
        if settings["app_websocket_path"]:
            numbers = range(1, settings["app_websocket_processes"] + 1)
            # Twisted opens its sockets to all, and the directory lets nginx's group alone pass
            allowed |= {
                f"{slot}/websocket-{number}.sock {app}:{settings['app_group']} 666" for number in numbers
            }
        allowed |= {
            f"{each['socket']} {app}:{web} 660" for each in settings["app_processes"] if "socket" in each
        }
        directory, port = settings["pgbouncer_socket_directory"], settings["pgbouncer_port"]
        allowed.add(f"{directory}/.s.PGSQL.{port} pgbouncer:{settings['pgbouncer_socket_group']} 660")
    if "database" in groups:
        directory, port = settings["postgresql_socket_directory"], settings["postgresql_port"]
        allowed.add(f"{directory}/.s.PGSQL.{port} postgres:postgres 777")
    paths = {line.split()[4] for line in host.check_output("ss -H -lx").splitlines()}
    ours = sorted(path for path in paths if not path.startswith(SYSTEM) and path != "*")
    found = host.check_output(f"stat -c '%n %U:%G %a' {' '.join(ours)}").splitlines() if ours else []
    assert set(found) == allowed


@pytest.mark.hosts("web")
def test_nginx_alone_reaches_the_application(host, settings):
    """gunicorn believes whatever X-Forwarded-For says, so nobody else may say it."""
    slot = f"{settings['app_runtime_directory']}/{live_slot(host, settings)}"
    users = host.check_output("cut -d: -f1 /etc/passwd").split()
    connect = (
        "import glob, os, pwd, socket, sys\n"
        "for name in sys.argv[2:]:\n"
        "    user = pwd.getpwnam(name)\n"
        "    if os.fork() == 0:\n"
        "        os.initgroups(name, user.pw_gid); os.setgid(user.pw_gid); os.setuid(user.pw_uid)\n"
        "        try:\n"
        "            socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "        except PermissionError:\n"
        "            os._exit(0)\n"
        "        print(name, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    for socket in host.check_output(f"find {slot} -type s").split():
        reached = host.check_output(f"python3 -c %s {socket} {' '.join(users)}", connect).split()
        assert set(reached) == {"root", settings["app_user"], "www-data"}, socket


def reachable(address, ports):
    """Which TCP ports answer, asked from the control machine."""

    async def ask(port):
        try:
            async with asyncio.timeout(3):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            return None
        writer.close()
        return port

    async def ask_all():
        return await asyncio.gather(*(ask(port) for port in ports))

    return {port for port in asyncio.run(ask_all()) if port}


def address_of(settings):
    return settings.get("ansible_host", settings["inventory_hostname"])


def test_the_firewall_lets_exactly_the_open_ports_through(host, settings):
    """Asked for what listens, for what usually does, and for ports where nothing should ever be."""
    local = {int(entry.split()[1].rsplit(":", 1)[1]) for entry in listening(host) if entry.startswith("tcp")}
    asked = (
        local | set(settings["base_open_tcp"]) | {21, 25, 53, 111, 3000, 5432, 6379, 6432, 8000, 8080, 9100}
    )
    assert reachable(address_of(settings), asked) == set(settings["base_open_tcp"])


@pytest.mark.disruptive
def test_what_no_rule_names_is_not_reachable_from_outside(host, settings):
    """Somebody who starts a server by hand has not put it on the internet."""
    port = 8765
    host.check_output(f"systemd-run --quiet --collect --unit=test-listener python3 -m http.server {port}")
    try:
        inside = (
            f"python3 -c 'import socket; socket.create_connection((\"{address_of(settings)}\", {port}), 3)'"
        )
        wait_until(lambda: host.run(inside).rc == 0, "the listener to answer inside")
        assert reachable(address_of(settings), [port]) == set()
    finally:
        host.check_output("systemctl stop test-listener.service")
