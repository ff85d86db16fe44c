import os
import platform

import pytest
from machines.conftest import why_no_machines
from vagrant.lab import OWN, PROVIDER, Lab

from pergola.machines import cgroups

lab_of_session = Lab()


def pytest_configure(config):
    if PROVIDER not in OWN:
        raise pytest.UsageError(f"PROVIDER={PROVIDER}: vagrant up is run in {' or '.join(OWN)} alone")
    capture = config.pluginmanager.getplugin("capturemanager")

    def tell(line):
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", end="", flush=True)

    lab_of_session.tell = tell


def why_no_vagrant():
    if why := why_no_machines():
        return why
    system = platform.freedesktop_os_release()
    if (system["ID"], system.get("VERSION_ID")) != ("debian", "12"):
        return f"vagrant-lxc is a package of Debian 12, and this is {system['PRETTY_NAME']}"
    if not any("devices" in options for options in cgroups.mounts().values()):
        return "vagrant-lxc's networks need the controller 'devices' of cgroup v1, and none is mounted"
    return ""


@pytest.fixture(scope="session")
def vagrant_installed():
    if why := why_no_vagrant():
        # where everything must run, a test that did not is a failure
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    with lab_of_session.timed("packages"):
        lab_of_session.install()


@pytest.fixture(scope="session")
def lab(vagrant_installed):
    try:
        lab_of_session.begin()
        yield lab_of_session
    finally:
        lab_of_session.end()


def pytest_terminal_summary(terminalreporter):
    for what, seconds in lab_of_session.timings:
        terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
