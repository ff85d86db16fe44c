"""The README's commands on a machine that has nothing, so that nothing installed by hand hides a step."""

import json
import re
import shlex

import pytest
from fresh.control_machine import CHECKOUT, ROOT, SOURCE
from machines.environment import listing, traces
from waiting import wait_until

README = (ROOT / "README.md").read_text()
PREPARE = re.findall(r"`(apt-get [^`]+)`", README)
FIRST = re.findall(r"^(\S.*?)(?:\s+#.*)?$", re.search(r"^```sh\n(.*?)^```", README, re.M | re.S)[1], re.M)
FORWARDING = "cat /proc/sys/net/ipv4/ip_forward"
NAMED = re.findall(r"`(make(?: [a-z-]+)?)`", README)


def bridges():
    """What the machines' bridges on this host, other checkouts' too, remember of forwarding before them."""
    links = json.loads("".join(listing("ip", "-json", "link", "show", "type", "bridge")) or "[]")
    ours = [link for link in links if re.match(r"pergola\d", link.get("ifname", ""))]
    # one that another run is just making has no alias yet
    return [link["ifalias"].split()[1] for link in ours if link.get("ifalias")]


def test_the_readmes_commands_make_a_replica_and_leave_nothing(machine):
    [prepare] = PREPARE
    # make test-ci runs the parts of the second command beside this one
    assert FIRST == ["make up", "make test"]
    forwarding = (bridges() or [machine.run(FORWARDING).strip()])[0]

    machine.run(prepare)
    machine.run(f"git clone --quiet {SOURCE} {shlex.quote(CHECKOUT)}")
    mounts = machine.mounts()

    def run(command):
        return machine.run(command, CHECKOUT)

    printed = run("make up")
    url = run("make -s url").strip()
    assert f"\n  {url}\n" in printed
    assert f": {run('make -s ca').strip()}\n" in printed
    assert json.loads(run('curl -sS --cacert "$(make -s ca)" "$(make -s url)/readyz"'))["ready"] is True

    changed = re.findall(r"changed=(\d+)", run("make converge"))
    assert changed
    assert set(changed) == {"0"}
    # make dev runs until Ctrl-C, which tests/app proves
    for command in [named for named in NAMED if named not in (*FIRST, "make down", "make dev")]:
        run(command)

    record = json.loads((machine.root / CHECKOUT[1:] / ".pergola/local/machines.json").read_text())
    assert traces(record["id"])
    run("make down")
    # ssh keeps a connection for a minute, in case another command wants it
    wait_until(lambda: machine.processes() == [], "every process to end")
    assert traces(record["id"], record["network"].removesuffix("0/24")) == []
    assert machine.mounts() == mounts
    # Another run's bridge and the setting change one after the other.
    wait_until(
        lambda: machine.run(FORWARDING).strip() == ("1" if bridges() else forwarding),
        "the host's forwarding to be as before",
    )


@pytest.mark.full
def test_who_may_not_make_machines_can_run_the_tests_that_need_none(machine):
    [prepare] = PREPARE
    machine.run(prepare)
    machine.run("useradd --create-home someone")

    def run(command, directory="/home/someone/pergola"):
        before = ["setpriv", "--reuid=someone", "--regid=someone", "--clear-groups", "--no-new-privs"]
        return machine.run(command, directory, "/home/someone", [*before, "--bounding-set=-all"])

    run("! unshare --mount true", "/")
    run(f"git clone --quiet {SOURCE} pergola", "/home/someone")
    assert "install your system's python3-venv package" in run("! make .venv/ready")
    machine.run("apt-get install -y python3-venv")
    run("make .venv/ready")
    # in CI a test that is skipped for want of Redis fails; here nobody installs one
    said = run("env -u CI .venv/bin/pytest -n 4")
    assert re.search(r"\d+ passed", said)
    assert re.search(r"need machines: .*tests/infra .*tests/fresh", said)
