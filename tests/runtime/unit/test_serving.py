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
DATABASES = {{"default": {{"ENGINE": "{engine}", "NAME": "x", "OPTIONS": {options}}}}}
"""
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

    def load(mode, engine="django.db.backends.postgresql", **options):
        (tmp_path / "project.py").write_text(SETTINGS.format(engine=engine, options=options))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PERGOLA_")}
        source = Path(pergola_runtime.__file__).parents[1]
        return subprocess.run(
            [sys.executable, "-c", "import pergola_runtime.serving"],
            env=kept
            | {
                "DJANGO_SETTINGS_MODULE": "project",
                "PERGOLA_POOL_MODE": mode,
                "PYTHONPATH": f"{source}:{tmp_path}",
            },
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
