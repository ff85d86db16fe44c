import re
from pathlib import Path

import pytest
from config.env import VARIABLES, read
from django.core.exceptions import ImproperlyConfigured

REQUIRED = [name for name, variable in VARIABLES.items() if variable.default is None]


def message(name, environ):
    with pytest.raises(ImproperlyConfigured) as refused:
        read(name, environ)
    (line,) = str(refused.value).splitlines()
    return line


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("environ", [{}, {"DEBUG": "false"}, "empty"])
def test_a_required_variable_that_is_missing_is_named(name, environ):
    environ = {name: " "} if environ == "empty" else environ
    assert message(name, environ).startswith(f"{name} is not set: ")


@pytest.mark.parametrize("name", VARIABLES)
def test_debug_alone_is_enough_for_a_checkout(name):
    read(name, {"DEBUG": "true"})


def test_debug_is_off_unless_said():
    assert read("DEBUG", {}) is False


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DEBUG", "True", True),
        ("DEBUG", "0", False),
        ("EMAIL_PORT", " 587 ", 587),
        ("ALLOWED_HOSTS", "a.example, b.example,", ["a.example", "b.example"]),
        ("CSRF_TRUSTED_ORIGINS", "", []),
    ],
)
def test_values_are_typed(name, text, value):
    assert read(name, {name: text}) == value


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("DEBUG", "maybe", "true or false"),
        ("EMAIL_PORT", "smtp", "a whole number"),
        ("DATABASE_URL", "app:hush@db/app", "a database's URL"),
        ("DATABASE_URL", "oracel://app:hush@db/app", "a database's URL"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_without_being_shown(name, text, expected):
    line = message(name, {name: text})
    assert line.startswith(f"{name} is not {expected}: ")
    assert text not in line


def test_a_unix_sockets_directory_comes_out_of_the_database_url():
    database = read("DATABASE_URL", {"DATABASE_URL": "postgresql://app:p%40ss@%2Frun%2Fpgbouncer:6432/app"})
    parts = [database[key] for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")]
    assert parts == ["app", "p@ss", "/run/pgbouncer", 6432, "app"]


def test_the_readme_lists_the_same_variables():
    readme = (Path(__file__).parents[2] / "app/README.md").read_text()
    assert re.findall(r"^\| `([A-Z_]+)` \|", readme, re.MULTILINE) == list(VARIABLES)
