"""SSH as it looks from outside: these connect from the control machine, past every shared connection."""

import re
import subprocess

import pytest


def try_to_log_in(settings, user, *options):
    address = settings.get("ansible_host", settings["inventory_hostname"])
    command = ["ssh", *options, *settings["host_ssh"][1:], f"{user}@{address}", "sudo -n true"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("user", ["operator", "root"])
def test_a_key_is_the_only_way_in_that_is_offered(host, settings, user):
    """A password can be guessed, so none is asked for, of nobody."""
    user = settings["site_operator_user"] if user == "operator" else user
    refused = try_to_log_in(settings, user, "-o", "PreferredAuthentications=none")
    assert re.search(r"Permission denied \((.*)\)", refused.stderr)[1] == "publickey", refused.stderr


def test_root_is_refused_even_with_the_operators_key(host, settings):
    """What people do as root carries a person's name: they log in as themselves and use sudo."""
    refused = try_to_log_in(settings, "root")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_the_operator_logs_in_and_becomes_root(host, settings):
    entered = try_to_log_in(settings, settings["site_operator_user"])
    assert entered.returncode == 0, entered.stderr


def test_no_account_has_a_password(host):
    """With keys alone, a password would only be one more thing to lose."""
    entries = (line.split(":") for line in host.check_output("getent shadow").splitlines())
    assert [name for name, password, *_ in entries if not password.startswith(("!", "*"))] == []
