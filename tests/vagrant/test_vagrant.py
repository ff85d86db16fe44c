"""`vagrant up`, and what a person does next, on a machine made from nothing. In this order."""

import platform
import re
import shlex
import time
from pathlib import Path

import diagnosis
import pytest
from vagrant.lab import PATIENCE, PROVIDER, ROOT, STATE, VIRSH, address
from waiting import wait_until


@pytest.fixture(scope="module")
def up(lab):
    """What `vagrant up` said, the second one, after the first was killed with a machine half made."""
    made = STATE / f"dotfiles/machines/app/{PROVIDER}/id"
    lab.interrupt("vagrant", "up", when=made.exists)
    with lab.timed("vagrant up"):
        return lab.works("vagrant", "up", "--no-color", seconds=600)


@pytest.fixture(scope="module")
def authority(up):
    return re.search(r"^\W*(?:app: )?(/.+/ca\.crt)$", up, re.MULTILINE)[1]


@pytest.fixture
def is_ready(lab, authority):
    asked = ["curl", "--silent", "--show-error", "--fail-with-body", "--cacert", authority]
    return lambda: lab.run(*asked, f"https://{address()}/readyz").returncode == 0


@pytest.fixture
def comes_back(lab, is_ready):
    def wait(what):
        began = time.time()
        try:
            wait_until(is_ready, f"readyz to answer after {what}", 60 * PATIENCE)
        except AssertionError:
            lab.run(*lab.shell, "ss -ltn; ip -brief address")
            shown = diagnosis.script(began, ["app-*", "nginx", "pgbouncer"])
            lab.run(*lab.shell, f"sudo sh -c {shlex.quote(shown)}")
            raise

    return wait


def test_up_ends_with_the_url_and_the_authority_and_how_to_trust_it(up, authority):
    end = up[-600:]
    assert f"https://{address()}" in end
    assert Path(authority).is_relative_to(STATE)
    assert f"sudo install -m 644 '{authority}' /usr/local/share/ca-certificates/" in end


def test_site_is_ready_under_the_printed_authority(is_ready, comes_back):
    if PROVIDER == "lxc":
        assert is_ready()
    else:  # emulated: an answer may take longer than the health check waits for
        comes_back("vagrant up")


def test_second_provision_changes_nothing(lab, up):
    with lab.timed("vagrant provision, again"):
        said = lab.works("vagrant", "provision", "--no-color", seconds=300)
    assert re.findall(r"changed=(\d+)", said) == ["0", "0"]


def test_machine_passes_the_tests_of_every_environment(lab, up):
    with lab.timed("make verify"):
        lab.works("make", "verify", "ENV=vagrant", seconds=300)


def test_vagrant_still_logs_in(lab, up):
    assert lab.works("vagrant", "ssh", "--command", "sudo hostname").split()[-1] == "app"


def test_a_virtual_machine_has_a_kernel_of_its_own_that_enforces_limits(lab, up):
    """Those of memory and tasks, which a container's host may not enforce."""

    def asked(command):
        return lab.run("vagrant", "ssh", "--command", command)

    own = asked("uname -r").output.split()[-1] != platform.release()
    assert own == (PROVIDER != "lxc")
    if own:
        unit = "sudo systemd-run --quiet --wait --pipe --collect"
        eat = "-- sh -c 'head -c 200M /dev/zero | tail -c 200M > /dev/null'"
        fork = "-- sh -c 'for one in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait'"
        for command, limit in ((eat, "-p MemoryMax=64M -p MemorySwapMax=0"), (fork, "-p TasksMax=5")):
            assert asked(f"{unit} {command}").returncode == 0
            assert asked(f"{unit} {limit} {command}").returncode != 0


def test_redis_may_fork_whatever_memory_is_free(lab, up):
    """By the kernel's default it could not save data that takes half of the memory.

    In a container the host's kernel decides.
    """
    written = "grep vm.overcommit_memory /etc/sysctl.d/61-pergola-redis.conf"
    in_force = "/usr/sbin/sysctl vm.overcommit_memory"
    said = lab.run("vagrant", "ssh", "--command", written if PROVIDER == "lxc" else in_force)
    assert re.search(r"^-?vm\.overcommit_memory ?= ?1\s*$", said.output, re.M), said.output


@pytest.fixture
def kept(lab, up):
    """Somebody is in a container's network, which outlives it so; as for connections that break off."""
    if PROVIDER != "lxc":
        yield
        return
    pid = lab.works("lxc-info", "--name", lab.name, "--no-humanize", "--pid").strip()
    somebody = lab.start("nsenter", f"--net=/proc/{pid}/ns/net", "sleep", "infinity")
    yield
    lab.end_group(somebody)


def test_reload_brings_everything_back_by_itself(lab, kept, comes_back):
    with lab.timed("vagrant reload, until ready"):
        lab.works("vagrant", "reload", "--no-provision", "--no-color", seconds=300)
        comes_back("vagrant reload")
    if PROVIDER == "lxc":
        links = lab.works("ip", "-brief", "link", "show", "master", "pergola-vagrant").splitlines()
        assert len(links) == 1, "the address is also answered by what is left of the former machine"


def test_a_snapshot_brings_back_what_was(lab, is_ready, comes_back):
    if PROVIDER == "lxc":  # it has none, and Vagrant says so
        done = lab.run("vagrant", "snapshot", "save", "built")
        assert done.returncode == 1
        assert "doesn't support snapshots" in done.output
        return
    with lab.timed("vagrant snapshot, saved and restored"):
        lab.works("vagrant", "snapshot", "save", "built")
        lab.works("vagrant", "ssh", "--command", "sudo systemctl disable --now nginx")
        assert not is_ready()
        lab.works("vagrant", "snapshot", "restore", "--no-provision", "built")
        comes_back("vagrant snapshot restore")


def test_destroy_forgets_the_machine(lab, up):
    with lab.timed("vagrant destroy"):
        lab.works("vagrant", "destroy", "--force", seconds=120)
    listing = {"lxc": ["lxc-ls", "--line"], "libvirt": [*VIRSH, "list", "--all", "--name"]}
    assert lab.works(*listing[PROVIDER]).strip() == ""
    # a machine made anew has other keys
    assert not list(Path(STATE).rglob("known_hosts"))


@pytest.mark.full
def test_ansible_works_inside_the_machine_as_well(lab):
    """As on Windows. Its own authority is new each time, and copied to the host."""
    authority = ROOT / ".vagrant/ca.crt"
    inside = {"PERGOLA_ANSIBLE": "guest", "seconds": 900}
    try:
        with lab.timed("vagrant up, Ansible inside"):
            said = lab.works("vagrant", "up", "--no-color", **inside)
        assert f"https://{address()}" in said[-600:]
        url = f"https://{address()}/readyz"
        lab.works("curl", "--silent", "--fail", "--cacert", authority, url)
        again = lab.works("vagrant", "provision", "--no-color", **inside)
        assert re.findall(r"changed=(\d+)", again) == ["0", "0"]
    finally:
        lab.works("vagrant", "destroy", "--force", seconds=120)
        authority.unlink(missing_ok=True)
