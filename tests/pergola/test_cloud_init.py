"""What `make cloud-init` prints and refuses; that it works is tried on a machine (tests/machines)."""

import subprocess
import sys

import pytest
import yaml

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF operator"


def ask(env):
    program = [sys.executable, "-m", "pergola", "cloud-init", env]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_the_operator_gets_the_keys_of_the_inventory_and_no_password(inventory, tmp_path):
    (tmp_path / "other key.pub").write_text(KEY + "s\n")
    keys = [KEY, f"{tmp_path}/other key.pub"]
    inventory.settings({"site_operator_user": "kim", "site_operator_keys": keys})
    done = ask(inventory.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#cloud-config\n")
    [user] = yaml.safe_load(done.stdout)["users"]
    assert (user["name"], user["lock_passwd"]) == ("kim", True)
    assert user["ssh_authorized_keys"] == [KEY, KEY + "s"]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ([], "site_operator_keys is empty: name an SSH public key"),
        (["~/.ssh/none.pub"], "site_operator_keys holds '~/.ssh/none.pub', which is neither"),
        (["AAAAC3NzaC1lZDI1NTE5"], "site_operator_keys holds 'AAAAC3NzaC1lZDI1NTE5', which is neither"),
    ],
)
def test_keys_that_open_nothing_are_refused(inventory, keys, line):
    inventory.settings({"site_operator_keys": keys})
    done = ask(inventory.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("env", ["local", "vagrant"])
def test_machines_that_are_made_here_want_none(env):
    done = ask(env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ENV={env}: make up or vagrant up makes its machines")
