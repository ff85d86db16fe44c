"""The replica that these tests break, and what runs on it."""

import contextlib
import functools
import ipaddress
import json
import os
import ssl
import subprocess

import httpx
from waiting import wait_until

ADDRESSES = 100  # of clients, from the last of the replica's network downwards

# One look at all that says which release is live. A process belongs to the release in whose directory it
# works; `python` alone would be no sign, as it is Debian's.
LOOK = """
import json, pathlib, re, subprocess
def read(path):
    try:
        return str(pathlib.Path(path).readlink())
    except OSError:
        return ""
def last(path):
    return path.rpartition("/")[2]
home, sockets = pathlib.Path(HOME), pathlib.Path(SOCKETS)
running = {}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    found = re.match(rf"{home}/releases/(\\w+)", read(process / "cwd"))
    if found:
        try:
            group = (process / "cgroup").read_text().strip()
        except OSError:
            continue
        unit = last(next((part for part in group.split("/") if part.startswith("app-run")), last(group)))
        running.setdefault(found[1], set()).add(unit)
show = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating"]
units = subprocess.run([*show, "app-*"], capture_output=True, text=True, check=True).stdout
releases = [path for path in (home / "releases").iterdir()]
print(json.dumps({
    "record": last(read(home / "live")),
    "traffic": last(read(sockets / "live")),
    "live": last(read(home / "slots" / last(read(home / "live")))),
    "running": {name: sorted(units) for name, units in running.items()},
    "units": sorted(line.split()[0] for line in units.splitlines()),
    "whole": sorted(path.name for path in releases if (path / "release.json").exists()),
    "torn": sorted(path.name for path in releases if not (path / "release.json").exists()),
    "aside": sorted(str(path) for path in [*home.glob("*.new"), *sockets.glob("*.new")]),
}))
"""


class Replica:
    """One machine that does everything; `settings` are those of its converge."""

    def __init__(self, servers):
        self.servers = servers
        (self.settings,) = servers.settings.values()
        self.url = self.settings["site_url"]
        self.authority = self.settings["secrets_authority_certificate"]
        self.inventory = f"infra/ansible/inventory/{servers.name}"

    def run(self, command, given=None, check=True):
        """What root's shell on the machine printed."""
        arguments = [*self.settings["host_login"], "--", "sudo sh -c " + quoted(command)]
        done = subprocess.run(
            arguments, input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def shell(self, code):
        """Python in the live release; by standard input, as arguments are for all to see."""
        return self.run("app-manage shell --no-imports -v 0", given=code)

    def served(self):
        """The name of the release that answers; None for one that no test made."""
        return self.get("/livez").json().get("release")

    def look(self):
        places = {"HOME": self.settings["app_home"], "SOCKETS": self.settings["app_runtime_directory"]}
        code = "".join(f"{name} = {value!r}\n" for name, value in places.items()) + LOOK
        return json.loads(self.run("python3 -", given=code))

    def releases(self):
        return json.loads(self.run("appctl releases --json"))

    @functools.cached_property
    def tls(self):
        return ssl.create_default_context(cafile=self.authority)

    def get(self, path):
        return httpx.get(self.url + path, verify=self.tls, timeout=30)

    def journal(self, since, until=None, lines=60):
        """What the application and nginx said between two moments."""
        end = f" --until=@{until:.0f}" if until else ""
        units = " ".join(f"-u {unit!r}" for unit in ("app-*", "nginx", "pgbouncer", "redis-server"))
        return self.run(
            f"journalctl --no-pager --output=short-iso-precise --since=@{since:.0f}{end} {units}"
            f"| grep -v 'INFO httpx' | tail -n {lines}; tail -n 10 /var/log/nginx/error.log;"
            "grep -E '\" (499|5[0-9][0-9]) ' /var/log/nginx/access.log | tail -n 10",
            check=False,
        )


def quoted(command):
    return "'" + command.replace("'", "'\\''") + "'"


def settled(replica):
    """What is wrong with what runs: nothing, where one release serves and nothing else is left."""
    seen = replica.look()
    slot, live = seen["record"], seen["live"]
    settings = replica.settings
    wanted = {f"app-web@{slot}.service", f"app-web@{slot}.socket"}
    wanted |= {f"app-websocket@{slot}-{n}.service" for n in range(1, settings["app_websocket_processes"] + 1)}
    beside = {f"app-{part}.service" for part in settings["app_celery_parts"]}
    beside |= {f"app-{process['name']}.service" for process in settings["app_processes"]}
    slots = {unit for unit in seen["units"] if unit.startswith(("app-web@", "app-websocket@"))}
    wrong = []
    if seen["traffic"] != slot:
        wrong.append(f"the record says {slot}, and traffic goes to {seen['traffic']}")
    if slots != wanted:
        wrong.append(f"of the slots runs {sorted(slots)}")
    if set(seen["running"]) != {live}:
        wrong.append(f"{live} is live, and there run {seen['running']}")
    if lacking := beside - set(seen["running"].get(live, [])):
        wrong.append(f"not of the live release, or not there: {sorted(lacking)}")
    if seen["torn"] or seen["aside"]:
        wrong.append(f"left behind: {seen['torn'] + seen['aside']}")
    return wrong


def well(replica):
    """Until what nobody waits for, as a rollback's old slot, has ended as well."""
    wait_until(lambda: not settled(replica), lambda: f"all to be well: {settled(replica)}")


def bridge_of(address):
    """The name of this computer's interface on the network of a machine."""
    links = json.loads(
        subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout
    )
    for link in links:
        for one in link["addr_info"]:
            network = ipaddress.ip_network(f"{one['local']}/{one['prefixlen']}", strict=False)
            if one["prefixlen"] < 32 and ipaddress.ip_address(address) in network:
                return link["ifname"], network
    raise AssertionError(f"no interface here leads to {address}")


@contextlib.contextmanager
def many_addresses(address, count=ADDRESSES):
    """So many addresses of clients on the network of the machine with this address."""
    name, network = bridge_of(address)
    own = [str(network[-2 - number]) for number in range(count)]
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]

    def change(verb):
        lines = "".join(f"address {verb} {one}/32 dev {name}\n" for one in own)
        # what a killed run left is there already, and what it took away is gone
        subprocess.run([*become, "ip", "-force", "-batch", "-"], input=lines, text=True, capture_output=True)

    change("replace")
    try:
        yield own
    finally:
        change("delete")
