"""The machine goes down and comes up: everything is back by itself, and nothing else."""

import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from infra.tools import live_slot
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]
EVIDENCE = ["app-*", "nginx", "pgbouncer", "postgresql@*", "redis-server"]


def say(settings, command):
    """Over a connection of its own: the shared one does not notice at once that its machine is gone."""
    done = subprocess.run([*settings["host_login"], command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def boot_id(settings):
    return say(settings, "cat /proc/sys/kernel/random/boot_id")


def sockets(host):
    said = host.check_output("ss -H -ltunx | awk '{print $1, $5}'")
    return {line for line in said.splitlines() if "/run/user" not in line and not line.endswith("*")}


@pytest.fixture(scope="module")
def restarted(host, settings):
    """What was before, once the machine has booted again."""
    before = {"slot": live_slot(host, settings), "sockets": sockets(host), "boot": boot_id(settings)}
    subprocess.run([*settings["host_login"], "sudo systemctl reboot"], capture_output=True, check=False)
    wait_until(lambda: boot_id(settings) not in (None, before["boot"]), "the machine to come up", 180)
    # the shared connection breaks at its first use, and the next one opens it anew
    wait_until(lambda: answers(host), "the shared connection")
    return before


def answers(host):
    try:
        return host.run("true").rc == 0
    except RuntimeError:
        return False


def ready(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    try:
        return httpx.get(settings["site_url"] + settings["app_health_path"], verify=context, timeout=10)
    except httpx.TransportError:
        return None


def test_the_site_is_ready_again(restarted, host, settings):
    answer = wait_until(
        lambda: (said := ready(settings)) and said.status_code == 200 and said, "the site to be ready"
    )
    assert answer.status_code == 200


def test_nothing_failed_on_the_way(restarted, host):
    state = host.run("systemctl is-system-running --wait").stdout.strip()
    assert host.run("systemctl --failed --legend=no --plain").stdout == ""
    assert state == "running"


def test_the_same_slot_is_live(restarted, host, settings):
    assert live_slot(host, settings) == restarted["slot"]
    assert host.check_output("readlink %s/live", settings["app_runtime_directory"]) == restarted["slot"]


def test_exactly_what_listened_before_listens_again(restarted, host):
    assert sockets(host) == restarted["sockets"]
