"""A fresh server that answers as root: how the operator's door opens, the others shut, and secrets are born.

Real servers begin so. The machine stands in for one: its inventory here names an address and a key.
"""

import subprocess

import pytest
import yaml
from machines.environment import Environment

GROUPS = ("server", "edge", "web", "worker", "database", "redis")


class Server(Environment):
    """One fresh machine, under an inventory of servers."""

    def __init__(self, machine, folder):
        super().__init__(folder / "states", inventory=folder / "server")
        self.machine = machine
        self.address = machine.record["addresses"]["app"]
        self.key = machine.state / "ssh/id_ed25519"
        self.secrets = self.inventory / "secrets/secrets.yml"
        self.vault = folder / "vault-password"
        self.vault.write_text("correct horse battery staple\n")
        (self.inventory / "group_vars").mkdir(parents=True)
        hosts = {name: {"hosts": {"one": {}}} for name in GROUPS}
        hosts["server"]["hosts"]["one"] = {"ansible_host": self.address}
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))

    def variables(self):
        return super().variables() | {"ANSIBLE_VAULT_PASSWORD_FILE": str(self.vault)}

    def settings(self, **settings):
        settings = {
            "site_domain": "app.example.org",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.machine.state}/known_hosts",
        } | settings
        (self.inventory / "group_vars/server.yml").write_text(yaml.safe_dump(settings))

    def answers(self, user, *command):
        reach = ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-i", self.key]
        reach += ["-o", f"UserKnownHostsFile={self.machine.state}/known_hosts"]
        return subprocess.run(
            ["ssh", *reach, f"{user}@{self.address}", *(command or ["true"])],
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def server(host_of_machines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    machine = Environment(folder / "machine")
    try:
        machine.works("up", "-e", "machines_memory=512M")
        yield Server(machine, folder)
    finally:
        machine.works("down")


def test_a_key_that_nobody_here_has_leaves_the_old_door_open(server, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "lost"], check=True)
    server.settings(site_operator_keys=[str(tmp_path / "lost.pub")])
    done = server.play("site", "--tags", "base")
    assert done.returncode != 0
    assert "could not log in to one by a second connection" in done.stdout
    assert "the old rules of sshd are back" in done.stdout
    assert server.answers("root").returncode == 0
    assert server.answers("root", "ls /etc/ssh/sshd_config.d").stdout.split() == []


def test_the_first_converge_makes_the_operator_and_shuts_root_out(server):
    assert server.answers("root").returncode == 0
    server.settings(site_operator_keys=[f"{server.key}.pub"])
    server.works("site", "--tags", "base")
    assert server.answers("ops", "sudo -n true").returncode == 0
    assert "Permission denied" in server.answers("root").stderr
    # root's door is shut, so this one came as the operator
    assert server.works("site", "--tags", "base").changed == 0


def test_secrets_are_born_encrypted_where_a_vault_password_is_configured(server):
    assert server.secrets.read_text().startswith("$ANSIBLE_VAULT;")
    assert server.secrets.stat().st_mode & 0o777 == 0o600
    assert server.secrets.parent.stat().st_mode & 0o777 == 0o700
    before = server.secrets.read_text()
    server.works("site", "--tags", "base")
    assert server.secrets.read_text() == before


def test_a_second_operator_without_the_secrets_is_refused(server):
    """The server has them already; new ones would lock the application out of its data."""
    server.works("site", "--tags", "base,secrets")
    aside = server.secrets.rename(server.secrets.with_suffix(".aside"))
    try:
        said = server.refuses("site", "--tags", "base")
        assert "secrets.yml lacks authority_key, database_password, django_key, redis_password" in said
        assert not server.secrets.exists()
    finally:
        aside.rename(server.secrets)
