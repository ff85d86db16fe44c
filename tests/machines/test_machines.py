"""What `make up` makes, what survives what, and that `make down` leaves nothing."""

import os
import signal

from machines.environment import traces
from waiting import wait_until

SMALL = ["-e", "machines_memory=512M"]
SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('198.18.0.1', 9))"
UNIT = "systemd-run --quiet --pipe --wait"


def test_a_second_up_changes_nothing(standing):
    assert standing.works("up", *SMALL).changed == 0


def test_the_machine_is_a_debian_13_of_its_own_that_reaches_the_world(standing):
    assert "trixie" in standing.ssh("cat /etc/os-release")
    assert standing.ssh("hostname") == "app"
    assert standing.ssh("systemctl is-system-running") == "running"
    mirror = "grep -rhoE '://[^/ ]+' /etc/apt/sources.list* | head -n1 | cut -c4-"
    assert standing.ssh(f"getent hosts $({mirror})")


def test_only_root_may_enter_the_machines_files(standing):
    """They hold setuid programs, and files of users whose numbers belong to others on this host."""
    assert (standing.state / "machines").stat().st_mode & 0o077 == 0
    assert (standing.state / "ssh/id_ed25519").stat().st_mode & 0o077 == 0


def test_units_are_held_to_their_addresses(standing):
    """Without the capabilities that up grants, systemd in a machine accepts IPAddressDeny and ignores it."""
    assert "PermissionError" in standing.ssh(f'{UNIT} -p IPAddressDeny=any python3 -c "{SEND}" 2>&1 || true')
    assert standing.ssh(f'{UNIT} python3 -c "{SEND}" 2>&1') == ""


def test_the_machine_is_held_to_its_memory(standing):
    eat = "python3 -c \"b'x' * (600 << 20)\"; echo $?"
    assert standing.ssh(eat).splitlines()[-1] == "137"
    assert standing.ssh(eat.replace("600", "100")).splitlines()[-1] == "0"


def test_a_machine_that_restarts_itself_comes_back_by_itself(standing):
    before = standing.init()
    # a moment later, so that this connection ends before the machine does
    standing.ssh("systemd-run --quiet --on-active=1s systemctl reboot")
    wait_until(lambda: standing.init() not in (None, before), "the machine to start again")
    assert standing.works("up", *SMALL).changed == 0


def test_a_killed_machine_comes_back_with_its_data(standing):
    standing.ssh("echo kept > /root/kept; sync")
    os.kill(standing.init(), signal.SIGKILL)
    assert standing.works("up", *SMALL).changed == 1
    assert standing.ssh("cat /root/kept") == "kept"


def test_a_machine_that_outlived_its_supervisor_is_not_booted_twice(standing):
    """systemd-nspawn killed alone leaves the machine running, with nobody to restart it."""
    orphan = standing.init()
    for pid in standing.processes(r"systemd-nspawn|pergola\.machines"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not standing.processes(r"systemd-nspawn|pergola\.machines"), "the supervisor to end")
    assert standing.works("up", *SMALL).changed == 1
    assert standing.init() != orphan
    assert len(standing.processes("^systemd-nspawn")) == 1


def test_down_leaves_nothing_and_then_has_nothing_to_do(environment):
    environment.works("up")
    record = environment.record
    number = record["network"].split(".")
    bridge = f"pergola{int(number[1]) % 2 * 256 + int(number[2])}"
    assert traces(f"{bridge}:")
    assert traces(f"table ip {bridge} ")
    assert traces(record["id"])

    assert environment.works("down").changed == 1

    own = [record["id"], str(environment.state), f"{bridge}:", f"{bridge}-", f'"{bridge}"', f"ip {bridge} "]
    assert traces(*own) == []
    assert list(environment.state.iterdir()) == []
    assert environment.works("down").changed == 0
