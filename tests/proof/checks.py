"""A pytest plugin that writes what the runner needs to know: a line of JSON for each test, to PERGOLA_CHECKS.

    {"id": "tests/app/test_x.py::test_y", "outcome": "passed", "seconds": 4.8, "cpu": 0.3}
    {"opened": ["app/manage.py", ...]}     files of this checkout that the tests' own processes opened

`cpu` is of pytest's process, the processes that it waited for, and the replica's machine if there is one.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from .digest import ROOT
from .usage import machines_cpu

VARIABLE = "PERGOLA_CHECKS"
STARTED = pytest.StashKey()
HERE = f"{ROOT}{os.sep}"
OPENED = set()


def note_open(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        OPENED.add(arguments[0])


# from the import on, as conftest.py of the tests' own directory is read before pytest_configure
if VARIABLE in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    sys.addaudithook(note_open)


def replica():
    states = os.environ.get("PERGOLA_STATE")
    return Path(states) / (os.environ.get("ENV") or "local") if states else None


def used():
    own = sum(os.times()[:4])
    return own + (machines_cpu(replica()) if replica() else 0)


def source(path):
    """The file of this checkout that was opened, as git names it; a module's for its compiled form.

    Relative names are left out: rmtree() opens what it deletes by names relative to a directory.
    """
    name = os.path.normpath(path)
    if not name.startswith(HERE):
        return None
    name = name[len(HERE) :]
    folder, cache, file = name.rpartition("__pycache__/")
    return f"{folder}{file.partition('.')[0]}.py" if cache else name


class Checks:
    """`target` is where the lines go; None in a worker of xdist, whose controller writes them."""

    def __init__(self, target):
        self.target = target
        self.seconds = {}
        self.outcomes = {}

    def sources(self):
        return sorted(filter(None, {source(path) for path in OPENED.copy()}))

    def write(self, line):
        with self.target.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        item.stash[STARTED] = used()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        if call.when == "teardown":
            item.user_properties.append(("cpu", round(used() - item.stash[STARTED], 2)))
        return (yield)

    def pytest_runtest_logreport(self, report):
        if not self.target:
            return
        name = report.nodeid
        if report.when not in ("setup", "call", "teardown"):  # the process of xdist that ran it has crashed
            self.write({"id": name, "outcome": "failed", "seconds": 0, "cpu": 0})
            return
        self.seconds[name] = self.seconds.get(name, 0) + report.duration
        if report.failed or self.outcomes.get(name) is None or report.skipped:
            self.outcomes[name] = report.outcome
        if report.when == "teardown":
            cpu = dict(report.user_properties).get("cpu", 0)
            seconds = round(self.seconds.pop(name), 2)
            self.write({"id": name, "outcome": self.outcomes.pop(name), "seconds": seconds, "cpu": cpu})

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        node.workerinput["checks"] = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        OPENED.update(str(ROOT / name) for name in getattr(node, "workeroutput", {}).get("opened", ()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.target:
            self.write({"opened": self.sources()})
        else:
            session.config.workeroutput["opened"] = self.sources()


def register(config):
    """Called for every run of pytest; does nothing where no runner asked for it.

    The variable is taken away, as a pytest that a test starts is not this one.
    """
    target = os.environ.pop(VARIABLE, None)
    if target or getattr(config, "workerinput", {}).get("checks"):
        config.pluginmanager.register(Checks(Path(target) if target else None), "pergola-checks")
