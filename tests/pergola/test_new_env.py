"""`make new-env` writes an inventory that is ready to converge, and refuses what cannot work."""

import os
import shutil
import subprocess

import pytest
from house import ANSIBLE, ROOT, read_yaml

from pergola import new_env

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF operator"


def make(*arguments, **environment):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def new_environment(tmp_path):
    """make new-env NAME=..., with a home that has a key; the folder is removed afterwards."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text(f"{KEY}\n")
    name = f"made_by_test_{os.getpid()}"

    def new(**arguments):
        arguments = {"NAME": name, "HOST": "203.0.113.7", "DOMAIN": "app.example.org"} | arguments
        return make("new-env", *(f"{key}={value}" for key, value in arguments.items()), HOME=str(tmp_path))

    new.folder = ANSIBLE / "inventory" / name
    yield new
    shutil.rmtree(new.folder, ignore_errors=True)


def test_a_new_environment_is_ready_to_converge_and_never_replaced(new_environment):
    done = new_environment()
    assert done.returncode == 0, done.stdout
    name = new_environment.folder.name
    assert make("-s", "url", f"ENV={name}").stdout == "https://app.example.org\n"
    assert read_yaml(new_environment.folder / f"group_vars/{name}.yml") == {
        "site_domain": "app.example.org",
        "site_operator_keys": ["~/.ssh/id_ed25519.pub"],
        "site_bootstrap_user": "root",
    }
    hosts = read_yaml(new_environment.folder / "hosts.yml")
    assert hosts.pop(name) == {"hosts": {f"{name}-1": {"ansible_host": "203.0.113.7"}}}
    assert set(hosts) == {"edge", "web", "worker", "database", "redis", "monitoring", "backup"}
    assert all(group == {"hosts": {f"{name}-1": None}} for group in hosts.values())

    before = (new_environment.folder / "hosts.yml").read_text()
    done = new_environment(HOST="203.0.113.8")
    assert done.returncode != 0
    assert f"inventory/{name}/ is there already: edit it, or choose another name" in done.stderr
    assert (new_environment.folder / "hosts.yml").read_text() == before


def test_secrets_may_be_there_before_the_environment(new_environment):
    secrets = new_environment.folder / "secrets/secrets.yml"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("stripe_key: one\n")
    assert new_environment().returncode == 0
    assert secrets.read_text() == "stripe_key: one\n"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            {"NAME": "Prod-1", "HOST": "", "DOMAIN": "App Example"},
            [
                "NAME='Prod-1': write a name of lower case letters",
                "HOST='': write the server's address",
                "DOMAIN='App Example': write",
            ],
        ),
        ({"NAME": "web"}, ["NAME='web': write a name"]),
        ({"KEY": "/nowhere.pub"}, ["There is no public key /nowhere.pub"]),
    ],
)
def test_a_new_environment_says_what_is_wrong(new_environment, arguments, lines):
    done = new_environment(**arguments)
    assert done.returncode != 0
    assert not [line for line in lines if line not in done.stderr]
    assert done.stderr.count("\n") <= len(lines) + 1  # make adds a line
    assert done.stdout == ""
    assert not new_environment.folder.exists()


def test_values_that_yaml_would_read_as_something_else_are_quoted(new_environment):
    assert new_environment(HOST="::1", DOMAIN="1.5").returncode == 0
    name = new_environment.folder.name
    assert (
        read_yaml(new_environment.folder / "hosts.yml")[name]["hosts"][f"{name}-1"]["ansible_host"] == "::1"
    )
    assert read_yaml(new_environment.folder / f"group_vars/{name}.yml")["site_domain"] == "1.5"


def test_keys_are_named_by_file_name_or_pattern(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    for name in ("home/.ssh/one.pub", "home/.ssh/two.pub", "home/.ssh/two", "other key.pub"):
        (tmp_path / name).write_text(KEY)
    assert new_env.public_keys("") == ["~/.ssh/one.pub", "~/.ssh/two.pub"]
    assert new_env.public_keys("~/.ssh/two.pub") == ["~/.ssh/two.pub"]
    assert new_env.public_keys("other key.pub") == [f"{tmp_path}/other key.pub"]
    assert new_env.public_keys(f"{tmp_path}/home/.ssh/t*.pub") == ["~/.ssh/two.pub"]
    assert new_env.public_keys("/nowhere.pub") == []
