"""What `make doctor` says, of directories of programs made for the test and of this machine itself."""

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from house import ROOT

from pergola import doctor
from pergola.machines import host


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only directory of programs there is, and a way to put one more in it."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(folder))
    return put


def ask(*arguments, before=()):
    return subprocess.run(
        [*before, sys.executable, "-m", "pergola", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_thing_has_one_line_and_the_status_says_whether_a_door_is_open():
    done = ask("local")
    lines = done.stdout.splitlines()
    assert not [line for line in lines if not re.match(r" *\S[\S ]{2,15} +(ok|no)  \S", line)]
    names = [line[:16].strip() for line in lines]
    assert names[:6] == ["system", "programs", "memory", "make dev", "make up", "vagrant up"]
    doors = [line for line in lines if re.match(r"make up|  (?!disk)", line)]
    assert done.returncode == (0 if any("  ok  " in line for line in doors) else 1), done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root without namespaces")
def test_where_nothing_can_run_it_says_so_and_fails(tmp_path):
    """Root in an unprivileged container is root without this capability."""
    (tmp_path / "unshare").symlink_to(shutil.which("unshare"))
    before = ["setpriv", "--bounding-set=-sys_admin", "env", f"PATH={tmp_path}"]
    done = ask("local", before=before)
    assert done.returncode == 1
    assert "make up           no  This host refuses namespaces" in done.stdout
    assert "vagrant up        no  not installed: apt-get" in done.stdout


def test_too_little_memory_is_named_with_the_setting():
    text, well = doctor.memory({"app": {"host_memory_mb": 1 << 40}})
    assert not well
    assert "lower machines_memory (make up) or host_memory_mb" in text


def test_too_little_disk_is_named_with_the_place(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "DISK_PER_MACHINE", 1 << 60)
    text, well = doctor.disk({"app": {}}, tmp_path / "not yet")
    assert not well
    assert f"free at {tmp_path}" in text


def test_a_port_that_is_taken_has_a_way_around():
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert doctor.port(number) == (f"port {number} is taken: make dev PORT={number + 1}", False)
    assert doctor.port(number)[1]


def test_servers_are_not_made_here():
    text, well = doctor.nspawn({"www": {"environment_name": "production"}})
    assert not well
    assert text.startswith("ENV=production is made of no systemd-nspawn machines")


def test_missing_programs_are_named(programs):
    programs("make", "")
    text, well = doctor.programs()
    assert not well
    assert text.startswith("ssh ssh-keygen is missing: install it")


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("Vagrant 2.2.19", "Vagrant 2.2.19 is older than 2.3: install a newer one"),
        ("Vagrant 2.4.9", "Vagrant 2.4.9"),
    ],
)
def test_vagrant_is_asked_for_its_version(programs, version, line):
    programs("vagrant", f'[ "$1" = --version ] && echo {version}')
    assert doctor.vagrant() == ((line, line == version), [])


def test_a_provider_wants_its_program_its_service_and_its_plugin(programs, monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    plugins = ["vagrant-libvirt", "(0.11.2,", "system)"]
    assert doctor.provider("libvirt", plugins)[0].startswith("virsh is missing: on Debian apt-get install")
    programs("virsh", "echo Denied >&2; exit 1")
    assert doctor.provider("libvirt", plugins)[0].startswith(
        "`virsh --connect qemu:///system version` fails (Denied): sudo systemctl start libvirtd; if that"
    )
    programs("virsh", "exit 0")
    assert (
        doctor.provider("libvirt", [])[0] == "the plugin is missing: vagrant plugin install vagrant-libvirt"
    )
    assert doctor.provider("libvirt", plugins)[1]
    programs("VBoxManage", "exit 0")
    assert doctor.provider("virtualbox", []) == ("ready", True)
    assert doctor.provider("parallels", []) == ("runs on macOS", False)


def test_asked_for_room_it_says_only_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path))
    done = ask("vagrant", "--room=lxc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_room_is_asked_for_what_is_not_made_yet(tmp_path):
    hosts = {name: {"vagrant_machine": str(tmp_path / name)} for name in ("one", "two")}
    (tmp_path / "one/virtualbox").mkdir(parents=True)
    (tmp_path / "one/virtualbox/id").write_text("1")
    assert list(doctor.not_made(hosts)) == ["two"]


def test_a_port_or_a_network_that_is_taken_is_named(programs):
    programs(
        "ip",
        """echo '[{"dst": "default", "dev": "eth0"}, {"dst": "10.1.0.0/16", "dev": "eth0"},
        {"dst": "10.2.0.0/16", "dev": "vboxnet0"}]'""",
    )
    hosts = {"one": {"ansible_host": "10.1.2.3"}, "two": {"ansible_host": "10.2.3.4"}}
    assert list(doctor.collisions(hosts)) == [
        "10.1.2.3 is in the network 10.1.0.0/16 of eth0: write another one in hosts.yml of the environment"
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        ports = {"vagrant_ssh_port": number, "site_http_port": 1, "site_https_port": 2}
        assert next(iter(doctor.collisions({"one": ports}))).startswith(
            f"port {number} is taken: write another"
        )


def test_a_machine_that_is_too_small_is_said_before_vagrant_makes_one(tmp_path, monkeypatch):
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path))
    monkeypatch.setattr(host, "DISK_PER_MACHINE", 1 << 60)
    with pytest.raises(SystemExit, match=r"GiB free at .*: free some$"):
        doctor.examine("vagrant", "virtualbox")


def test_a_provider_that_lets_nobody_in_is_said_before_vagrant_makes_a_machine(programs, monkeypatch):
    programs("virsh", "echo error: Permission denied >&2; exit 1")
    with pytest.raises(SystemExit, match=r"^`virsh .*` fails \(error: Permission denied\): sudo systemctl"):
        doctor.examine("vagrant", "libvirt")
