"""What the Vagrantfile says for each provider and environment, as Vagrant reads it; without a machine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from vagrant.lab import INVENTORY, ROOT, address

SETTINGS = Path(__file__).with_name("machine_settings.rb")
# the table's rows: | provider | `its box` | ...
ROW = re.compile(r"^\| (\w+) \| `([\w-]+/[\w-]+)` \|", re.MULTILINE)
GUIDE = ROOT / "docs/local-replica.md"
BOXES = dict(ROW.findall(GUIDE.read_text()))
PROVIDERS = ["libvirt", "parallels", "qemu", "virtualbox", "vmware_desktop"]


class Checkout:
    """As much of a checkout as Vagrant reads, where a test may write; its path is as people's are."""

    def __init__(self, folder):
        self.folder = folder / "a b é"
        self.inventories = self.folder / "infra/ansible/inventory"
        shutil.copytree(INVENTORY.parent, self.inventories, symlinks=True)
        (self.folder / "requirements").mkdir()
        for name in ("Vagrantfile", "requirements/install.sh"):
            shutil.copy(ROOT / name, self.folder / name)
        self.home = folder / "home"

    def run(self, *command, **environment):
        own = {"VAGRANT_HOME": str(self.home), "VAGRANT_CHECKPOINT_DISABLE": "1"}
        kept = {name: value for name, value in os.environ.items() if name not in ("ENV", "PERGOLA_BOX")}
        return subprocess.run(
            [shutil.which(command[0]), *command[1:]],
            cwd=self.folder,
            env=kept | own | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def machines(self, *asked, **environment):
        done = self.run("ruby", SETTINGS, *asked, **environment)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert not [problem for machine in found for problem in machine["problems"]]
        return found

    def several(self, name="cluster"):
        """An environment with three machines."""
        hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
        app = hosts["vagrant"]["hosts"].pop("app")
        for number in range(3):
            hosts["vagrant"]["hosts"][f"web{number}"] = app | {"ansible_host": f"192.168.61.2{number}"}
        (self.inventories / name).mkdir()
        (self.inventories / name / "hosts.yml").write_text(yaml.safe_dump(hosts))
        return name


@pytest.fixture
def checkout(vagrant_installed, tmp_path):
    return Checkout(tmp_path)


def addresses(machine):
    return [network["ip"] for kind, network in machine["networks"] if kind == "private_network"]


def test_each_provider_has_its_box_unless_another_is_named(checkout):
    asked = [f"app:{provider}" for provider in PROVIDERS]
    boxes = [machine["box"] for machine in checkout.machines(*asked)]
    assert dict(zip(PROVIDERS, boxes, strict=True)) == BOXES
    named = checkout.machines(*asked, "app:lxc", PERGOLA_BOX="mine")
    assert {machine["box"] for machine in named} == {"mine"}


def test_a_machine_is_as_its_inventory_says_and_has_no_folder_of_the_host(checkout):
    app = yaml.safe_load((INVENTORY / "hosts.yml").read_text())["vagrant"]["hosts"]["app"]
    libvirt, virtualbox = checkout.machines("app:libvirt", "app:virtualbox")
    for machine in (libvirt, virtualbox):
        assert addresses(machine) == [address()]
        assert machine["mounted"] == []
        assert machine["provisioners"] == [["site", "ansible", "all"], ["deploy", "ansible", "all"]]
    memory, cpus = app["host_memory_mb"], app["vagrant_cpus"]
    assert (libvirt["settings"]["memory"], libvirt["settings"]["cpus"]) == (memory, cpus)
    options = [option[1] for option in virtualbox["settings"]["customizations"]]
    assert [option[2:] for option in options] == [["--memory", str(memory)], ["--cpus", cpus]]


def test_room_and_the_provider_are_looked_at_once_before_a_machine_is_made(checkout):
    first, second = checkout.machines("web0:libvirt", "web1:libvirt", ENV=checkout.several())
    assert [command for command, _ in first["before"]] == ["up", "provision"]
    assert all(line.endswith(" ENV=cluster doctor ARGS=--room=libvirt") for _, line in first["before"])
    assert second["before"] == []
    [inside] = checkout.machines("app:libvirt", PERGOLA_ANSIBLE="guest")
    assert inside["before"] == []


def test_where_the_provider_has_no_networks_ports_are_forwarded(checkout):
    [machine] = checkout.machines("app:qemu", ENV="vagrant_ports")
    assert addresses(machine) == []
    ports = {network["host"]: network["guest"] for _, network in machine["networks"]}
    assert ports == {50022: 22, 8080: 8080, 8443: 8443}


def test_several_machines_are_built_together_when_the_last_one_is_up(checkout):
    made = checkout.machines("web0:libvirt", "web1:libvirt", "web2:libvirt", ENV=checkout.several())
    assert [machine["hostname"] for machine in made] == ["web0", "web1", "web2"]
    assert [len(machine["provisioners"]) for machine in made] == [0, 0, 2]
    assert len({addresses(machine)[0] for machine in made}) == 3


@pytest.mark.parametrize("environment", [{"PERGOLA_ANSIBLE": "guest"}, {"PATH": "/nowhere"}])
def test_ansible_runs_in_the_machine_where_the_host_has_no_python(checkout, environment):
    [machine] = checkout.machines("app:virtualbox", **environment)
    steps = [one[:2] for one in machine["provisioners"]]
    assert steps[1:3] == [["site", "ansible_local"], ["deploy", "ansible_local"]]
    assert machine["mounted"] == ["/vagrant"]


@pytest.mark.parametrize("provider", ["libvirt", "lxc", "virtualbox"])
def test_vagrant_finds_nothing_wrong_with_it(checkout, tmp_path, provider):
    # Vagrant asks VirtualBox for its version before it looks at the settings
    program = tmp_path / "VBoxManage"
    program.write_text("#!/bin/sh\necho 7.0.20\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = checkout.run("vagrant", "validate", VAGRANT_DEFAULT_PROVIDER=provider, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_vagrant_finds_nothing_wrong_where_ansible_is_inside(checkout):
    done = checkout.run("vagrant", "validate", "--ignore-provider", PERGOLA_ANSIBLE="guest")
    assert done.returncode == 0, done.stdout + done.stderr


def refusal(done):
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_an_environment_that_vagrant_does_not_make_is_refused(checkout):
    for env in ("local", "production"):
        said = refusal(checkout.run("vagrant", "validate", ENV=env))
        assert said.startswith(
            f"ENV={env}: infra/ansible/inventory/{env}/hosts.yml names no hosts in a group"
        )


def test_line_ends_of_windows_are_refused(checkout):
    script = checkout.folder / "requirements/install.sh"
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    assert "git config core.autocrlf false" in refusal(checkout.run("vagrant", "validate"))


def test_several_machines_without_ansible_on_the_host_are_refused(checkout):
    done = checkout.run("vagrant", "validate", ENV=checkout.several(), PERGOLA_ANSIBLE="guest")
    assert refusal(done).startswith("ENV=cluster has 3 machines, which want Ansible on the host: use")


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("virtualbox", "reporting that it isn't usable on this system"),
        ("vmware_desktop", "could not be found, but was requested to back"),
    ],
)
def test_the_guide_knows_what_vagrant_says_where_a_provider_is_missing(checkout, provider, words):
    done = checkout.run("vagrant", "up", f"--provider={provider}")
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert f"| `{words}` |" in GUIDE.read_text()
