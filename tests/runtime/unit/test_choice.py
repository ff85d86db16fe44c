"""Which handler serves, and why."""

from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from pergola_runtime import choice


@pytest.fixture(autouse=True)
def databases(monkeypatch):
    """The project's DATABASES, which a test may change."""
    databases = {"default": {"CONN_MAX_AGE": 0}}
    monkeypatch.setattr(choice, "settings", SimpleNamespace(DATABASES=databases))
    return databases


@pytest.fixture
def installed(monkeypatch):
    """Other versions of packages than those that are installed."""
    versions = {}
    found = choice.version
    monkeypatch.setattr(choice, "version", lambda package: versions.get(package) or found(package))
    return versions


def choose(asked=None):
    return choice.choose({"PERGOLA_HANDLER": asked} if asked else {})


@pytest.mark.parametrize("asked", [None, "auto", "lean"])
def test_ours_serves_on_versions_that_it_was_tested_with(asked):
    assert choose(asked) == ("lean", "")


def test_djangos_serves_where_it_is_asked_for():
    assert choose("django") == ("django", "app_handler is django")


@pytest.mark.parametrize("package", choice.TESTED)
def test_djangos_serves_on_newer_and_on_older_versions(installed, package):
    least, below = choice.TESTED[package]
    for version in (
        f"{below[0]}.{below[1]}",
        f"{least[0]}.{least[1] - 1}.9" if least[1] else f"{least[0] - 1}.99",
    ):
        installed[package] = version
        chosen, reason = choose()
        assert chosen == "django"
        assert reason.startswith(f"{package} {version} is outside of the versions")
        with pytest.raises(
            ImproperlyConfigured, match=f"{package} {version} .*: set app_handler to auto or django"
        ):
            choose("lean")


@pytest.mark.parametrize("age", [600, None])
def test_djangos_serves_where_connections_are_kept_for_longer_than_ours_keeps_them(databases, age):
    databases["default"]["CONN_MAX_AGE"] = age
    chosen, reason = choose()
    assert chosen == "django"
    assert f"DATABASES['default'] has CONN_MAX_AGE={age}" in reason
    with pytest.raises(ImproperlyConfigured, match="set app_handler to auto or django"):
        choose("lean")


def test_a_handler_that_there_is_not_is_refused():
    with pytest.raises(ImproperlyConfigured, match="PERGOLA_HANDLER=fast is not auto, lean or django"):
        choose("fast")


def test_a_pre_release_of_a_tested_version_counts_as_that_version(installed):
    installed["Django"] = "6.1rc1"
    assert choose() == ("lean", "")
