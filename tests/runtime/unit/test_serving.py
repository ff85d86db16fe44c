"""What pergola_runtime.serving refuses to load, before a release takes traffic."""

import os
import subprocess
import sys
from pathlib import Path

import pergola_runtime
import pytest

SETTINGS = """
SECRET_KEY = "x"
ROOT_URLCONF = "django.urls"
DATABASES = {databases}
"""
PLAIN = "django.db.backends.postgresql"
DERIVED = """
from {} import base
class DatabaseWrapper(base.DatabaseWrapper):
    pass
"""


@pytest.fixture
def load(tmp_path):
    """Load a project with these DATABASES; returns the finished process."""
    base = tmp_path / "django_tenants/postgresql_backend"
    own = tmp_path / "shop/backend"
    for package in (base.parent, base, own.parent, own):
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
    (base / "base.py").write_text(DERIVED.format("django.db.backends.postgresql"))
    (own / "base.py").write_text(DERIVED.format("django_tenants.postgresql_backend"))

    def load(mode, engine=PLAIN, databases=(), environment=(), **options):
        all_of_them = {"default": {"ENGINE": engine, "NAME": "x", "OPTIONS": options}} | dict(databases)
        (tmp_path / "project.py").write_text(SETTINGS.format(databases=all_of_them))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PERGOLA_")}
        source = Path(pergola_runtime.__file__).parents[1]
        return subprocess.run(
            [sys.executable, "-c", "import pergola_runtime.serving"],
            env=kept
            | {
                "DJANGO_SETTINGS_MODULE": "project",
                "PERGOLA_POOL_MODE": mode,
                "PYTHONPATH": f"{source}:{tmp_path}",
            }
            | dict(environment),
            capture_output=True,
            text=True,
            check=False,
        )

    return load


@pytest.mark.parametrize("engine", ["django_tenants.postgresql_backend", "shop.backend"])
def test_an_engine_that_sets_the_session_wants_session_pooling(load, engine):
    """Also one that a project has derived from such an engine."""
    refused = load("transaction", engine)
    assert refused.returncode != 0
    assert f"DATABASES['default']['ENGINE'] is '{engine}'" in refused.stderr.splitlines()[-1]
    assert "set pgbouncer_pool_mode to session" in refused.stderr.splitlines()[-1]
    for mode in ("session", ""):  # without PgBouncer a session is the request's own
        assert load(mode, engine).returncode == 0


def test_options_that_pgbouncer_does_not_take_are_refused(load):
    refused = load("transaction", options="-c lock_timeout=5s")
    assert refused.returncode != 0
    assert "set database_parameters to {lock_timeout: 5s}" in refused.stderr.splitlines()[-1]
    assert load("transaction", connect_timeout=5).returncode == 0


def test_other_aliases_that_lead_to_pgbouncer_are_looked_at_as_well(load):
    place = {"HOST": "/run/pgbouncer", "PORT": "6432", "NAME": "x"}
    default = {"default": place | {"ENGINE": PLAIN}}
    refused = load("transaction", databases=default | {"tenants": place | {"ENGINE": "shop.backend"}})
    assert refused.returncode != 0
    assert "DATABASES['tenants']['ENGINE'] is 'shop.backend'" in refused.stderr.splitlines()[-1]
    elsewhere = place | {"ENGINE": "shop.backend", "HOST": "/run/postgresql", "PORT": "5432"}
    assert load("transaction", databases=default | {"tenants": elsewhere}).returncode == 0


OWN_ASGI = """
import django
from django.core.handlers.asgi import ASGIHandler
django.setup()
application = ASGIHandler()
"""


@pytest.mark.parametrize("asked", ["auto", "django", "lean"])
def test_an_application_that_makes_its_handler_by_other_means_is_reported_or_refused(load, tmp_path, asked):
    """Only the handler of get_asgi_application() is chosen."""
    (tmp_path / "own_asgi.py").write_text(OWN_ASGI)
    environment = {"PERGOLA_APPLICATION": "own_asgi:application", "PERGOLA_HANDLER": asked}
    done = load("", environment=environment)
    said = "own_asgi:application does not call Django's get_asgi_application() when it is imported"
    assert said in done.stderr.splitlines()[-1]
    if asked == "lean":
        assert done.returncode != 0
        assert "call it there, or set app_handler to auto" in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0
        assert "pergola_runtime: the application's own handler serves: " in done.stderr


SENDS = """
from celery import Celery
app = Celery("shop", broker="redis://localhost:1", set_as_current=True)
app.conf.broker_transport_options = {"visibility_timeout": 60}
app.send_task("late", countdown=190)
"""


def test_a_request_cannot_send_a_task_whose_delay_is_too_long(load, tmp_path):
    """Also where the application does nothing about it."""
    (tmp_path / "shop_asgi.py").write_text(SENDS)
    environment = {"PERGOLA_APPLICATION": "shop_asgi:app", "PERGOLA_CELERY": "shop_asgi:app"}
    refused = load("", environment=environment)
    assert "DelayTooLongError" in refused.stderr
