"""Every service of a host starts again by itself, however often it ends."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from infra.tools import MORE_THAN_SYSTEMD_STARTS, asked_by_itself, changed, live_slot
from waiting import wait_until

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["app-*", "nginx", "pgbouncer*", "postgresql@*", "redis-server", "ssh", "dbus", "systemd-*"]

# Exactly the services that run, beside the application's own. One that is not listed fails the first test
# below: give its unit Restart=always and StartLimitIntervalSec=0 (recover.conf in infra/), and list it.
SERVICES = {
    "dbus.service",
    "nginx.service",
    "pgbouncer@N.service",
    "postgresql@17-main.service",
    "redis-server.service",
    "ssh.service",
    "systemd-journald.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "unattended-upgrades.service",
}
# A virtual machine has some of these as well, and some run for a minute after a request of D-Bus.
ELSEWHERE = {
    "polkit.service",
    "systemd-hostnamed.service",
    "systemd-localed.service",
    "systemd-resolved.service",
    "systemd-timedated.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
}
# Of these, each that a machine has is kept up as well.
KEPT_UP = "cron.service systemd-resolved.service systemd-timesyncd.service systemd-udevd.service"
# These end with a person's session, or are of the console.
OF_PEOPLE = re.compile(r"user@\d+\.service|(console-|serial-)?getty(@\w+)?\.service|app-probe-.*")


def running(host):
    """{unit: its main process}"""
    said = host.check_output(
        "systemctl show --property=Id,MainPID --value"
        " $(systemctl list-units --plain --legend=no --type=service --state=running | cut -d' ' -f1)"
    )
    found = {}
    for pair in said.split("\n\n"):
        pid, unit = sorted(pair.split())
        if not OF_PEOPLE.fullmatch(unit) and int(pid):
            found[unit] = int(pid)
    return found


def shown(host, properties, units):
    """What systemd says of each of these units: [{property: value}]"""
    said = host.check_output(f"systemctl show --property=Id,{properties} {units}")
    return [dict(line.split("=", 1) for line in unit.splitlines()) for unit in said.split("\n\n")]


def expected(host, settings):
    slot = live_slot(host, settings)
    sockets = range(1, settings["app_websocket_processes"] + 1) if settings["app_websocket_path"] else ()
    names = [*settings["app_celery_parts"], *(process["name"] for process in settings["app_processes"])]
    return (
        SERVICES
        | {f"app-web@{slot}.service"}
        | {f"app-websocket@{slot}-{number}.service" for number in sockets}
        | {f"app-{name}.service" for name in names}
    )


def numbered(units):
    """Any instance of PgBouncer may be the one that serves."""
    return {re.sub(r"^pgbouncer@\d", "pgbouncer@N", unit) for unit in units}


@pytest.mark.disruptive  # a server of yours may run others
def test_the_services_that_run_are_those_that_are_listed(host, settings):
    assert numbered(running(host)) - ELSEWHERE == expected(host, settings)


def test_every_service_restarts_always_and_without_a_limit(host, settings):
    units = " ".join(unit for unit in running(host) if numbered([unit]) <= expected(host, settings))
    limits = shown(host, "LoadState,Restart,StartLimitIntervalUSec", f"{units} {KEPT_UP}")
    limits = [one for one in limits if one["LoadState"] == "loaded"]
    wrong = [one for one in limits if (one["Restart"], one["StartLimitIntervalUSec"]) != ("always", "0")]
    assert wrong == []


def test_every_socket_of_the_site_starts_its_service_without_a_limit(host, settings):
    """A socket that reaches systemd's limit is `failed`, and refuses all until somebody starts it."""
    limits = shown(host, "TriggerLimitIntervalUSec", "'app-*.socket' pgbouncer.socket")
    loaded = {one["Id"] for one in limits}
    assert {"pgbouncer.socket", f"app-web@{live_slot(host, settings)}.socket"} <= loaded
    assert [one for one in limits if one["TriggerLimitIntervalUSec"] != "0"] == []


@pytest.mark.disruptive
@pytest.mark.parametrize("turns", [1, pytest.param(MORE_THAN_SYSTEMD_STARTS, marks=pytest.mark.full)])
def test_every_service_starts_again_when_all_are_killed(host, settings, turns):
    """Also more often than systemd's own limit, five starts within ten seconds, allows."""
    for turn in range(turns):
        before = {unit: pid for unit, pid in running(host).items() if unit not in ELSEWHERE}
        host.run(f"kill -KILL {' '.join(map(str, before.values()))}")

        def started_again(before=before):
            now = {unit: pid for unit, pid in running(host).items() if unit not in ELSEWHERE}
            return numbered(now) == numbered(before) and not set(now.values()) & set(before.values())

        wait_until(started_again, f"all services to start again after turn {turn + 1}: {sorted(before)}")
    assert host.run("systemctl --failed --legend=no --plain").stdout == ""
    path = settings["app_health_path"]
    wait_until(lambda: host.run("appctl verify live").rc == 0, f"{path} to answer")


@pytest.mark.disruptive
def test_requests_wait_for_a_service_that_cannot_start_and_are_answered_when_it_can(host, settings):
    """systemd runs no unit whose environment file is missing, so each start fails at once."""
    unit = f"app-web@{live_slot(host, settings)}.service"
    environment = settings["app_env_file"]

    def restarts():
        return int(host.check_output("systemctl show -P NRestarts %s", unit))

    with ThreadPoolExecutor() as pool:
        with changed(host, environment, f"rm {environment}"):
            before = restarts()
            host.check_output("systemctl kill --signal=KILL %s", unit)
            waiting = [pool.submit(asked_by_itself, host, settings) for _ in range(3)]
            wait_until(lambda: restarts() - before >= MORE_THAN_SYSTEMD_STARTS, "starts that fail")
        assert [one.result()[0][0] for one in waiting] == [200, 200, 200]
    assert host.run("systemctl --failed --legend=no --plain").stdout == ""
