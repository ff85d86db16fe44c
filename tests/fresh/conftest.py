import os
import subprocess
from pathlib import Path

import pytest
from fresh.control_machine import ROOT, Workshop

RELEASES = os.environ.get("RELEASES", "bookworm").split()


@pytest.fixture(scope="session")
def workshop():
    if os.geteuid():
        pytest.skip("a control machine of its own needs root")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("a control machine of its own needs namespaces")
    made = Workshop(Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola").absolute())
    yield made
    made.clean()


@pytest.fixture(scope="session", params=RELEASES)
def image(workshop, request):
    return workshop.image(request.param)


@pytest.fixture
def machine(workshop, image, request):
    """A pristine control machine; what it runs is told with its seconds."""
    plugin = request.config.pluginmanager.get_plugin

    def tell(line):
        with plugin("capturemanager").global_and_fixture_disabled():
            plugin("terminalreporter").ensure_newline()
            plugin("terminalreporter").write_line(line)

    with workshop.machine(image, tell) as machine:
        yield machine
