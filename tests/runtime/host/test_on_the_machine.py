"""Each file of inside/, with the sample's Django, and with each by FULL=1.

By FULL=1 also the files of ../unit with the Djangos that `make test-runtime` has not.
"""

import os
from itertools import product

import pytest
from runtime.host.conftest import DJANGOS, HERE, PLACE

FILES = sorted(path.name for path in (HERE / "inside").glob("test_*.py"))
# The results of these two depend only on pinned packages, so `make test-full` runs them and CI does not.
ONLY_FULL = {"test_agents.py", "test_patch_points.py"}
# on the newest Django without FULL=1: what our code takes beyond documentation
BEYOND_DOCUMENTATION = {"test_undocumented.py", "test_requests.py"}
if os.environ.get("FULL"):
    RUNS = list(product(DJANGOS, FILES))
else:
    RUNS = [(DJANGOS[0], name) for name in FILES if name not in ONLY_FULL]
    RUNS += [(django, name) for django in DJANGOS[1:] for name in FILES if name in BEYOND_DOCUMENTATION]
# about the repository's files, whatever Django there is
UNIT_FILES = sorted({path.name for path in (HERE.parent / "unit").glob("test_*.py")} - {"test_readme.py"})
UNIT_RUNS = list(product(DJANGOS[1:], UNIT_FILES))


@pytest.mark.parametrize(("django", "name"), RUNS)
def test_inside(machine, django, name):
    said = machine.as_user(
        f"venv-{django}/bin/python -m pytest -q -ra -p no:cacheprovider inside/{name}",
        environment={"DJANGO_TESTS": f"{django}/tests", "FULL": os.environ.get("FULL", "")},
    )
    assert " passed" in said, said
    assert " skipped" not in said, said


@pytest.mark.full
@pytest.mark.parametrize(("django", "name"), UNIT_RUNS)
def test_unit(machine, unit_tests, django, name):
    said = machine.as_user(
        f"venv-{django}/bin/python -m pytest -q -ra -p no:cacheprovider --import-mode=importlib"
        f" --basetemp={PLACE}/files -o asyncio_mode=auto tree/tests/runtime/unit/{name}",
        environment={"PYTHONPATH": f"{PLACE}/tree/tests:{PLACE}/tree/runtime/src"},
    )
    assert " passed" in said, said
    assert " skipped" not in said, said
