"""Each file of inside/, with each Django."""

import os

import pytest
from runtime.host.conftest import DJANGOS, HERE

FILES = sorted(path.name for path in (HERE / "inside").glob("test_*.py"))
# These compare with Django's handler in the same run: with the sample's Django, and with each by FULL=1.
COMPARED = {
    f"test_{name}.py"
    for name in ("agents", "blocking", "contextvars", "isolation", "patch_points", "servers", "tenants")
}
RUNS = [
    (django, name)
    for django in DJANGOS
    for name in FILES
    if django == DJANGOS[0] or name not in COMPARED or os.environ.get("FULL")
]


@pytest.mark.parametrize(("django", "name"), RUNS)
def test_inside(machine, django, name):
    said = machine.as_user(
        f"venv-{django}/bin/python -m pytest -q -ra -p no:cacheprovider inside/{name}",
        environment={"DJANGO_TESTS": f"{django}/tests", "FULL": os.environ.get("FULL", "")},
    )
    assert " passed" in said, said
    assert " skipped" not in said, said
