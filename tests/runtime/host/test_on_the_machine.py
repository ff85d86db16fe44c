"""Each file of inside/, with each Django."""

import os

import pytest
from runtime.host.conftest import DJANGOS, HERE

FILES = sorted(path.name for path in (HERE / "inside").glob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("django", DJANGOS)
def test_inside(machine, django, name):
    said = machine.as_user(
        f"venv-{django}/bin/python -m pytest -q -ra -p no:cacheprovider inside/{name}",
        environment={"DJANGO_TESTS": f"{django}/tests", "FULL": os.environ.get("FULL", "")},
    )
    assert " passed" in said, said
    assert " skipped" not in said, said
