"""Which handler serves, and why."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from pergola_runtime import choice, versions


@pytest.fixture(autouse=True)
def databases(monkeypatch):
    """The project's DATABASES, which a test may change."""
    databases = {"default": {"CONN_MAX_AGE": 0}}
    monkeypatch.setattr(choice, "settings", SimpleNamespace(DATABASES=databases))
    return databases


@pytest.fixture
def installed(monkeypatch):
    """Other versions of packages than those that are installed."""
    others = {}
    found = versions.version
    monkeypatch.setattr(versions, "version", lambda package: others.get(package) or found(package))
    return others


def choose(asked=None):
    return choice.choose({"PERGOLA_HANDLER": asked} if asked else {})


@pytest.mark.parametrize("asked", [None, "auto", "lean"])
def test_ours_serves_on_versions_that_it_was_tested_with(asked):
    assert choose(asked) == ("lean", "")


def test_djangos_serves_where_it_is_asked_for():
    assert choose("django") == ("django", "app_handler is django")


@pytest.mark.parametrize("package", choice.PACKAGES)
def test_djangos_serves_on_newer_and_on_older_versions(installed, package):
    least, below = versions.TESTED[package]
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


def test_a_project_may_subclass_what_get_asgi_application_makes(databases):
    from django.core import asgi

    choice.install()

    class Own(asgi.ASGIHandler):
        pass

    assert issubclass(Own, ASGIHandler)
    assert isinstance(object.__new__(ASGIHandler), asgi.ASGIHandler)
    assert not isinstance(object.__new__(ASGIHandler), Own)


@pytest.mark.parametrize("module", ["asgi", "handler", "forwarded"])
def test_names_of_the_version_before_still_serve(module):
    """A release of this version starts in units of that one, until the next converge."""
    code = (
        "from django.conf import settings; settings.configure(ROOT_URLCONF='django.urls');"
        f"import pergola_runtime.{module} as found;"
        "getattr(found, 'application', None) or found.get_asgi_application()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERGOLA_")}
    return kept | {"PYTHONPATH": str(Path(choice.__file__).parents[1])}


def test_a_handler_that_there_is_not_is_refused():
    with pytest.raises(ImproperlyConfigured, match="PERGOLA_HANDLER=fast is not auto, lean or django"):
        choose("fast")


def test_a_pre_release_of_a_tested_version_counts_as_that_version(installed):
    installed["Django"] = "6.1rc1"
    assert choose() == ("lean", "")


UNTESTED = """
import sys
from django.conf import settings
settings.configure(ROOT_URLCONF="django.urls")
sys.modules |= dict.fromkeys(f"pergola_runtime.{name}" for name in ("lean", "threads", "middleware"))
from pergola_runtime import choice, versions
versions.version = lambda package: "99.0"
import django.core.cache.backends.redis as backend
del backend.RedisCacheClient
from pergola_runtime.serving import application
choice.consumers(application)
print(type(choice.get_asgi_application()).__module__)
"""


def test_djangos_serves_where_ours_cannot_even_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", UNTESTED], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "django.core.handlers.asgi"
    assert "Django's own handler serves: Django 99.0 is outside" in done.stderr
