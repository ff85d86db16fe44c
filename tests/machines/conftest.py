import contextlib
import functools
import os
import subprocess
import time

import diagnosis
import pytest
from machines.environment import Environment, Server


@functools.cache
def why_no_machines():
    if os.geteuid():
        return "machines need root"
    tried = subprocess.run(["unshare", "-muinpf", "--mount-proc", "true"], capture_output=True, check=False)
    return f"namespaces are refused: {tried.stderr.decode().strip()}" if tried.returncode else ""


@pytest.fixture(scope="session")
def host_of_machines():
    if why := why_no_machines():
        # where everything must run, a test that did not is a failure
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


@pytest.fixture(scope="module")
def standing(host_of_machines, tmp_path_factory):
    """A small machine that stands; each test leaves it standing."""
    made = Environment(tmp_path_factory.mktemp("standing"))
    try:
        made.works("up", "-e", "machines_memory=512M")
        yield made
    finally:
        made.works("down")


@pytest.fixture(scope="module")
def server(host_of_machines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    machine = Environment(folder / "machine")
    try:
        machine.works("up", "-e", "machines_memory=512M")
        yield Server(machine, folder)
    finally:
        machine.works("down")


@pytest.fixture
def environment(host_of_machines, tmp_path):
    """An environment without machines, before and after the test."""
    made = Environment(tmp_path / "states")
    yield made
    made.works("down")


@pytest.fixture(autouse=True)
def evidence(request):
    """When a test fails, what each machine that it was given shows."""
    began = time.time()

    def show():
        given = [request.node.funcargs.get(name) for name in ("standing", "environment", "server")]
        # a server's inventory names no machine: the environment that made it does
        machines = [getattr(one, "machine", one) for one in given if one]
        shown = []
        for one in machines:
            with contextlib.suppress(Exception):  # one that is down, or was never made, shows nothing
                shown.append(f"{one.state}\n{one.ssh(diagnosis.script(began))}")
        return "the machines, when the test had failed", "\n".join(shown)

    request.node.evidence = [show]


@pytest.fixture
def network_namespace(host_of_machines):
    """What to put before a command, so that it runs in a network of the test's own."""
    name = f"pergola-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield ["nsenter", f"--net=/run/netns/{name}"]
    subprocess.run(["ip", "netns", "delete", name], check=True)
