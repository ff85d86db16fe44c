"""A test that takes `host` runs once for each host of the group that its marker names: `hosts("web")`."""

import functools
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import diagnosis
import pytest
import testinfra
from infra.tools import run_probe


def shared(config):
    """The conftest.py one level up, as pytest loaded it."""
    return config.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))


def pytest_generate_tests(metafunc):
    if "host_name" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("hosts")
        group = marker.args[0] if marker else "all"
        names = shared(metafunc.config).load_environment(os.environ.get("ENV") or "local").groups.get(group)
        if not names:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: the group {group} has no host")
        metafunc.parametrize("host_name", names, scope="session")


@pytest.fixture(scope="session")
def connections(servers):
    """One shared SSH connection a host, closed at the end."""
    with tempfile.TemporaryDirectory() as directory:  # short: a socket's path has at most 107 characters
        options = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={directory}/%C "
        opened = {}

        def connect(name):
            # ssh takes the first value of an option, so these come before the settings' own
            opened[name] = options + shlex.join(servers.settings[name]["host_ssh"][1:])
            return opened[name]

        yield connect
        for name, arguments in opened.items():
            close = ["ssh", *shlex.split(arguments), "-O", "exit", address(servers.settings[name])]
            subprocess.run(close, capture_output=True, check=False)


def address(settings):
    return settings.get("ansible_host", settings["inventory_hostname"])


@pytest.fixture(scope="session")
def host(host_name, servers, connections):
    """A host as testinfra sees it, with the rights of root."""
    known = servers.settings[host_name]
    reached = testinfra.get_host(
        f"ssh://{known['site_operator_user']}@{address(known)}",
        ssh_extra_args=connections(host_name),
        sudo=True,
    )
    # testinfra would ask the host for it, by a command that wants it where this checkout's path is not ASCII
    reached.backend._encoding = "UTF-8"
    try:
        tried = reached.run("true")
    except RuntimeError as error:
        tried = error.args[0]
    if tried.rc:
        pytest.exit(
            f"ENV={servers.name}: {host_name} ({address(known)}) does not answer as "
            f"{known['site_operator_user']}: {tried.stderr.strip()}. Run make up or make converge first",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    return reached


@pytest.fixture(scope="session")
def settings(host_name, servers):
    """The settings of that host."""
    return servers.settings[host_name]


@pytest.fixture(autouse=True)
def evidence(request):
    """When a test fails, what its host shows, with the journal of the module's EVIDENCE units."""
    if "host" not in request.fixturenames:
        return
    settings = request.getfixturevalue("settings")
    units = getattr(request.module, "EVIDENCE", ())
    # over a connection of its own: the shared one may be what broke
    request.node.evidence = [functools.partial(diagnosis.ask, settings, time.time(), units)]


@pytest.fixture
def probe(host, settings):
    """Run Python in the application's sandbox, as its user and with its environment and packages."""
    return functools.partial(run_probe, host, settings)


@pytest.fixture(scope="session", name="load_environment")
def loader(pytestconfig):
    return shared(pytestconfig).load_environment
