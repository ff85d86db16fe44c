"""Renders every template as a converge would, and runs playbooks that are expected to refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from house import ANSIBLE, INFRA, ROLES, ROOT, SERVER_FILES, TEMPLATES

from pergola import inventory
from pergola.mirror import destination

INVENTORY = """\
servers:
  hosts:
    one:
      ansible_host: 198.18.0.1
      ansible_ssh_common_args: -o ConnectTimeout=1
edge: {hosts: {one: }}
web: {hosts: {one: }}
worker: {hosts: {one: }}
database: {hosts: {one: }}
redis: {hosts: {one: }}
"""
SETTINGS = {
    "site_domain": "app.example.org",
    "site_operator_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF operator"],
}
# what a converge learns on its way: facts, secrets, and values that show each branch of a template
GIVEN = SETTINGS | {
    "ansible_facts": {"memtotal_mb": 4096, "processor_nproc": 2},
    "ansible_managed": "Ansible managed",
    "secrets_values": dict.fromkeys(("django_key", "database_password", "redis_password"), "s3cret"),
    "site_mail_relay": "mail.example.org",
    "site_mail_from": "app@example.org",
    "app_env": {"GREETING": 'a "quoted" \\ word', "NUMBER": 1},
    "app_processes": [{"name": "sidecar", "command": "python -m sidecar", "socket": "/run/app/sidecar.sock"}],
    "app_timers": [
        {"name": "clear", "command": "python manage.py clearsessions", "calendar": "*-*-* 04:00:00"}
    ],
}


class Playbook:
    """A playbook over an inventory of the test's own: one server that nobody runs."""

    def __init__(self, folder):
        self.folder = folder / "servers"
        (self.folder / "group_vars").mkdir(parents=True)
        self.hosts(INVENTORY)
        self.settings(SETTINGS)

    def hosts(self, text):
        (self.folder / "hosts.yml").write_text(text)

    def settings(self, values):
        (self.folder / "group_vars/servers.yml").write_text(yaml.safe_dump(values))

    def run(self, name="site.yml", *arguments, **environment):
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                self.folder,
                ANSIBLE / name,
                *arguments,
            ],
            cwd=ROOT,
            # linear, as mitogen's start is the dearest part of a play that reaches nobody
            env=os.environ
            | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_STRATEGY": "linear"}
            | {"PERGOLA_STATE": str(self.folder.parent / "state")}
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def playbook(tmp_path):
    return Playbook(tmp_path)


@pytest.fixture(scope="module")
def module_playbook(tmp_path_factory):
    """A playbook whose output is shared by the tests of one module."""
    return Playbook(tmp_path_factory.mktemp("playbook"))


def settings_of(given):
    """Every setting as a converge of the local replica works it out, facts and secrets included."""
    _, hosts = inventory.load("local", given)
    return hosts["app"]


def render(settings, root):
    """Every rendered file at its place on the server, under ``root``."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar, trust_as_template

    internals = {}  # of the roles, which some templates use
    for role in ROLES:
        path = ANSIBLE / f"roles/{role}/vars/main.yml"
        if path.exists():
            internals |= DataLoader().load_from_file(str(path), trusted_as_template=True)
    for file in SERVER_FILES:
        path = str(file.relative_to(INFRA)).removesuffix(".j2")
        variables = internals | settings
        if "app-process" in path:
            variables["process"] = settings["app_processes"][0]
            path = path.replace("app-process", "app-sidecar")
        if "app-timer" in path:
            variables["timer"] = settings["app_timers"][0]
            path = path.replace("app-timer", "app-clear")
        path = path.replace("recover.conf", "ssh.service.d/pergola.conf")
        if "pages/page" in path:
            variables["page"] = {"name": "maintenance", "title": "Back <soon>", "text": 'In "five" & more'}
            path = path.replace("page.", "maintenance.")
        text = file.read_text()
        if file in TEMPLATES:
            templar = Templar(loader=DataLoader(), variables=variables)
            text = templar.template(
                trust_as_template(text), preserve_trailing_newlines=True, escape_backslashes=False
            )
        rendered = root / destination(path).lstrip("/")
        rendered.parent.mkdir(parents=True, exist_ok=True)
        rendered.write_text(text)
    return root


@pytest.fixture(scope="session")
def settings():
    return settings_of(GIVEN)


@pytest.fixture(scope="session")
def server(settings, tmp_path_factory):
    """A folder that holds every rendered file at its place on the server."""
    return render(settings, tmp_path_factory.mktemp("server"))


@pytest.fixture
def settings_with():
    return lambda **given: settings_of(GIVEN | given)


@pytest.fixture
def server_with(tmp_path):
    """The same for an application of another kind."""
    return lambda **given: render(settings_of(GIVEN | given), tmp_path)
