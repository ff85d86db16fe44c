"""Django's own tests, through our handler, with PostgreSQL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITES = [
    "asgi",
    "async",
    "auth_tests.test_auth_backends",
    "auth_tests.test_decorators",
    "auth_tests.test_middleware",
    "auth_tests.test_mixins",
    "auth_tests.test_views",
    "cache.tests.CacheMiddlewareTest",
    "conditional_processing",
    "csrf_tests",
    "deprecation",
    "file_uploads",
    "flatpages_tests",
    "handlers",
    "i18n.patterns",
    "messages_tests",
    "middleware",
    "middleware_exceptions",
    "redirects_tests",
    "requests_tests",
    "sessions_tests",
    "signals",
    "test_client",
]
# With PostgreSQL what asks it in other ways than SQLite.
ON_POSTGRESQL = ["asgi", "async", "handlers", "sessions_tests"]

SYNCHRONOUS = "asks for the words of the synchronous chain, and ours is the asynchronous one"
# what fails with ours, and why it may; what is here and does not fail any more fails as well
MAY_FAIL = {
    "middleware_exceptions.tests.MiddlewareNotUsedTests.test_log": SYNCHRONOUS,
    "middleware_exceptions.tests.MiddlewareNotUsedTests.test_log_custom_message": SYNCHRONOUS,
    "middleware_exceptions.tests.MiddlewareSyncAsyncTests.test_async_middleware": SYNCHRONOUS,
}

SETTINGS = """
DATABASES = {{
    alias: {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": {host!r},
        "USER": "test",
        "NAME": "postgres",
        "TEST": {{"NAME": "test_" + alias}},
    }}
    for alias in ("default", "other")
}}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


def run(settings, suites, handler="lean", path=()):
    command = [sys.executable, HERE / "django_suites.py", handler, os.environ["DJANGO_TESTS"]]
    command += ["--parallel", "2", "--settings", settings, *suites]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    try:
        return json.loads(done.stdout.splitlines()[-1]), said
    except (IndexError, ValueError):
        pytest.fail(said[-8000:])


def wrong(result, suites):
    """What failed and may not, and what may and did not."""
    may = {name for name in MAY_FAIL if name.split(".")[0] in suites}
    return sorted(set(result["failed"]) ^ may)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_django_says_of_itself_is_so_of_ours(database, request, tmp_path):
    if database == "sqlite":
        suites = [name for name in SUITES if name not in ON_POSTGRESQL]
        result, said = run("test_sqlite", suites)
    else:
        suites = ON_POSTGRESQL
        directory = request.getfixturevalue("directory")
        (tmp_path / "lean_postgresql.py").write_text(SETTINGS.format(host=str(directory)))
        result, said = run("lean_postgresql", suites, path=[tmp_path])
    assert not wrong(result, suites), said[-20000:]
    assert result["ran"] > 200, said[-4000:]
    # or all of it was Django's
    assert result["walked"] > 10
    assert result["in_place"] > 50
    assert result["handled"] > 20 or "asgi" not in suites


def test_what_may_fail_with_ours_for_being_asynchronous_fails_with_django_s_as_well():
    result, said = run("test_sqlite", ["middleware_exceptions"], handler="django")
    assert result["failed"] == sorted(name for name, why in MAY_FAIL.items() if why is SYNCHRONOUS), said[
        -4000:
    ]
