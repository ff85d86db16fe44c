"""What the tests share: the environment under test, and that nothing is skipped in CI."""

import functools
import os
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import diagnosis
import pytest
from proof import checks

TESTS = Path(__file__).parent
# Where everything must run, in CI, a test of these that did not is a failure.
MACHINES = (
    "infra",
    "machines",
    "fresh",
    "vagrant",
    "smoke",
    "browser",
    "runtime/host",
    "faults",
    "recovery",
    "servers",
    "your_app",
)
STARTED = pytest.StashKey()
NEVER_SKIPPED = ("app", "runtime", "migrations", "load", *MACHINES)

# Tests start Django and Ansible by the dozen: with this variable, which containers like to set, each start
# compiles all of it again, and takes three times as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What a person gives to `make test-config ARGS="-k name"` is for pytest, not for the make that a test starts.
for name in ("MAKEFLAGS", "MFLAGS", "ARGS"):
    os.environ.pop(name, None)


@functools.cache
def load_environment(name, facts=()):
    """The inventory's groups and hosts, with each host's settings as its converge used them."""
    # not at the top: the parts that load no environment do not depend on these files
    from pergola import inventory

    try:
        with warnings.catch_warnings(action="ignore"):  # Ansible's, about being loaded again
            groups, settings = inventory.load(name, {"ansible_facts": dict(facts)} if facts else None)
    except SystemExit as refused:
        raise pytest.UsageError(str(refused)) from None
    return SimpleNamespace(name=name, groups=groups, settings=settings)


@pytest.fixture(scope="session")
def servers():
    """The environment under test: ENV, or the local replica. It must be up."""
    found = load_environment(os.environ.get("ENV") or "local")
    for host, settings in found.settings.items():
        if "machines_provider" in settings and "ansible_host" not in settings:
            pytest.exit(
                f"ENV={found.name} is not up ({host} has no address): run make up ENV={found.name}, "
                "or make test-infra, which brings a replica of its own up",
                returncode=pytest.ExitCode.USAGE_ERROR,
            )
    return found


@pytest.fixture(scope="session")
def edge(servers):
    """The settings of the first edge host: what clients see is the same on each."""
    return servers.settings[servers.groups["edge"][0]]


@pytest.fixture(scope="session")
def authority(edge):
    """The file of the environment's own authority; none where the world's sign its certificate."""
    path = Path(edge["secrets_authority_certificate"])
    return path if path.exists() else None


def pytest_configure(config):
    checks.register(config)


def pytest_collection_modifyitems(config, items):
    """Left out and not skipped: in CI what is skipped fails."""
    if os.environ.get("FULL"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if not item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item):
    item.stash[STARTED] = time.time()


def evidence_of(item):
    """What shows why a test failed: functions that return a title and a text.

    The test's own (`evidence`, which fixtures set), or what each host of the environment shows.
    """
    if hasattr(item, "evidence"):
        return item.evidence
    servers = item.funcargs.get("servers")
    # tests/app has a fixture of this name, too
    hosts = getattr(servers, "settings", {}).values()
    since = item.stash.get(STARTED, time.time())
    return [
        functools.partial(diagnosis.ask, settings, since) for settings in hosts if "host_login" in settings
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    part = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
    if report.skipped and not hasattr(report, "wasxfail") and part in NEVER_SKIPPED:
        if os.environ.get("CI") == "true":
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and in CI everything runs: {report.longrepr[-1]}"
    elif report.failed:
        for evidence in evidence_of(item):
            try:
                report.sections.append(evidence())
            except Exception as error:  # a host that is gone shows nothing, and the test's own words count
                report.sections.append(("no evidence", repr(error)))
    return report


def pytest_terminal_summary(terminalreporter, config):
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        parts = " ".join(f"tests/{part}" for part in MACHINES if (TESTS / part).exists())
        terminalreporter.write_line(f"Not run, as they need machines: {parts} (make test-full)")
