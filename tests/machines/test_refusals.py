"""What `make up` and `make down` refuse: before anything changed, in one line that names the way out."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from machines.environment import ROOT, Environment


@pytest.fixture
def replica(tmp_path):
    return Environment(tmp_path / "states")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_servers_are_never_taken_for_machines(tmp_path, verb):
    inventory = tmp_path / "production"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text("production:\n  hosts:\n    www.example.org:\n")
    said = Environment(tmp_path / "states", inventory).refuses(verb)
    assert said.startswith("ENV=production names servers")
    assert "make converge ENV=production" in said


@pytest.mark.parametrize("verb", ["up", "down"])
def test_an_inventory_without_hosts_is_refused(tmp_path, verb):
    inventory = tmp_path / "empty"
    inventory.mkdir()
    (inventory / "hosts.yml").write_text("all:\n")
    assert "names no hosts" in Environment(tmp_path / "states", inventory).refuses(verb)


def test_a_part_of_the_machines_is_not_removed(replica):
    assert "--limit" in replica.refuses("down", "--limit", "app")


def test_an_impossible_amount_of_memory_is_refused(replica):
    assert "write a number and M or G" in replica.refuses("up", "-e", "machines_memory=lots")


def test_a_range_without_a_free_network_is_refused(replica, network_namespace):
    for command in (
        "ip link add taken type bridge",
        "ip address add 198.18.7.200/28 dev taken",
        "ip link set taken up",
    ):
        subprocess.run([*network_namespace, *command.split()], check=True)
    said = replica.refuses("up", "-e", "machines_networks=198.18.7.0/24", before=network_namespace)
    assert said.startswith("No network of 198.18.7.0/24 is free")


def test_a_host_that_refuses_namespaces_is_named(replica, host_of_machines):
    """Root in an unprivileged container is root without this capability."""
    said = replica.refuses("up", before=["setpriv", "--bounding-set=-sys_admin"])
    assert said.startswith("This host refuses namespaces")
    assert "vagrant up" in said


def test_a_full_disk_is_named(tmp_path, host_of_machines):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", small], check=True)
    try:
        said = Environment(small).refuses("up")
    finally:
        subprocess.run(["umount", small], check=True)
    assert "GiB: free some, set PERGOLA_STATE" in said


@pytest.fixture
def checkout():
    """The playbooks where anybody may read them, wherever this checkout is."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("infra", "pergola"):
            shutil.copytree(ROOT / part, f"{folder}/{part}", symlinks=True)
        shutil.copy(ROOT / "ansible.cfg", folder)
        Path(folder).chmod(0o755)  # Ansible ignores ansible.cfg where anybody may write
        for own in ("ansible", "states"):
            (Path(folder) / own).mkdir()
            (Path(folder) / own).chmod(0o777)
        yield Path(folder)


def test_a_person_who_cannot_become_root_is_told(checkout):
    before = ["env", f"ANSIBLE_HOME={checkout}/ansible", f"PATH={checkout}:/usr/bin:/bin"]
    if os.geteuid() == 0:
        # may still read the programs of this checkout's .venv
        read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *read, *before]
    person = Environment(checkout / "states", checkout / "infra/ansible/inventory/local", root=checkout)
    said = person.refuses("up", before=before)
    assert said.startswith("Machines need root, or sudo")
    assert "vagrant up" in said
