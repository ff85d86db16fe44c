"""What was sent and lost under each server, said at the end."""

import pytest

FIGURES = pytest.StashKey()


def pytest_configure(config):
    config.stash[FIGURES] = []


@pytest.fixture(scope="session")
def figures(pytestconfig):
    return pytestconfig.stash[FIGURES]


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[FIGURES]:
        terminalreporter.section("servers of HTTP: a deploy and three restarts under load")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)
