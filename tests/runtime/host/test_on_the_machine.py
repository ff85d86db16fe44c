"""Each file of inside/, with the sample's Django, and with each by FULL=1."""

import os

import pytest
from runtime.host.conftest import DJANGOS, HERE

FILES = sorted(path.name for path in (HERE / "inside").glob("test_*.py"))
# The results of these two depend only on pinned packages, so `make test-full` runs them and CI does not.
ONLY_FULL = {"test_agents.py", "test_patch_points.py"}
# on the newest Django without FULL=1: what our code takes beyond documentation
BEYOND_DOCUMENTATION = {"test_undocumented.py", "test_requests.py"}
if os.environ.get("FULL"):
    RUNS = [(django, name) for django in DJANGOS for name in FILES]
else:
    RUNS = [(DJANGOS[0], name) for name in FILES if name not in ONLY_FULL]
    RUNS += [(django, name) for django in DJANGOS[1:] for name in FILES if name in BEYOND_DOCUMENTATION]


@pytest.mark.parametrize(("django", "name"), RUNS)
def test_inside(machine, django, name):
    said = machine.as_user(
        f"venv-{django}/bin/python -m pytest -q -ra -p no:cacheprovider inside/{name}",
        environment={"DJANGO_TESTS": f"{django}/tests", "FULL": os.environ.get("FULL", "")},
    )
    assert " passed" in said, said
    assert " skipped" not in said, said
