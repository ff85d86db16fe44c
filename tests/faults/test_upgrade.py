"""A host that the version before built is converged by this one under load, and goes back to its release."""

import io
import json
import secrets
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
from conftest import load_environment
from faults.conftest import MAKE_USERS
from faults.replica import Replica, well
from load.running import running
from machines.environment import ROOT, Environment

pytestmark = pytest.mark.full  # a machine of its own

BEFORE = "d7663f8"  # the last commit of version 0.7


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The version before."""
    packed = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=False)
    assert packed.returncode == 0, f"this clone lacks the commit {BEFORE}: git fetch --unshallow"
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def host(host_of_machines, tree, tmp_path_factory):
    """Built and released by the version before."""
    states = tmp_path_factory.mktemp("states")
    before = Environment(states, tree / "infra/ansible/inventory/local", root=tree)
    now = Environment(states)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERGOLA_STATE", str(states))
        try:
            for verb in ("up", "site", "deploy"):
                before.works(verb)
            load_environment.cache_clear()  # the environment of the same name is another one here
            yield SimpleNamespace(now=now, replica=Replica(load_environment("local")))
        finally:
            load_environment.cache_clear()
            now.works("down")


@pytest.fixture
def load(host, tmp_path):
    password = secrets.token_urlsafe(12)
    names = [f"load{number}" for number in range(10)]
    host.replica.shell(MAKE_USERS.format(given=json.dumps([names, password])))
    options = ["--url", host.replica.url, "--ca", host.replica.authority, "--seconds", 1200]
    options += ["--users", ",".join(f"{name}:{password}" for name in names), "--rooms", 10]
    options += ["--pause", 4, "--message-pause", 10, "--visitors", 4, "--settle", 240, "--job-pause", 20]
    options += ["--http-1"]  # as in tests/recovery/test_updates.py
    with running(tmp_path, *options) as clients:
        yield clients


def test_the_version_before_is_upgraded_without_a_lost_request(host, load):
    before = host.replica.look()["live"]
    host.now.works("site")
    assert host.replica.look()["live"] == before
    host.now.works("deploy")
    assert host.replica.look()["live"] != before
    again = host.now.works("site")
    host.now.works("rollback")
    assert host.replica.look()["live"] == before
    load.stop()
    print(f"requests: {load.counts['requests']}, WebSockets: {load.counts['WebSockets']}")
    assert load.lost_nothing, load.said
    assert again.changed == 0, again.stdout
    well(host.replica)
    assert host.replica.run("ls /usr/local/sbin").split() == [
        "appctl",
        "pgbouncer-switch",
        "restart-outdated",
    ]
