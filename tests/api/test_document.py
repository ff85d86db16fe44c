"""schemathesis makes requests from the OpenAPI document, well-formed and not, and holds the answers to it: no
server error, no undocumented status, media type or shape, nothing wrong taken, nothing right refused, no
token ignored. Always the same requests, so that what fails fails again.
"""

import os
import re
import shlex
import subprocess
import sys

import httpx
import pytest
from app.servers import ROOT, serving

COMMAND = shlex.split("""
-m schemathesis.cli run --mode all --phases coverage,fuzzing --max-examples 4 --generation-deterministic
--request-timeout 60 --suppress-health-check all --continue-on-failure --warnings off --no-color
""")
PREPARE = """
import django
django.setup()
from api.models import Token
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import call_command
from posts.services import create
call_command("migrate", verbosity=0)
user = User.objects.create_user("mina", password="hush hush")
async_to_sync(create)(user, title="A title", body="A body", tags=["tag"])
print(async_to_sync(Token.issue)(user)[1])
"""


def run(arguments, directory, env=None):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """(its address, a token, a directory). Redis is where nobody answers: so nobody counts requests."""
    directory = tmp_path_factory.mktemp("api")
    database = f"sqlite:///{directory}/db.sqlite3"
    env = {
        "DEBUG": "false",
        "SECRET_KEY": "for the tests alone, but long and varied enough for check --deploy",
        "ALLOWED_HOSTS": "localhost",
        "DATABASE_URL": database,
        "DATABASE_DIRECT_URL": database,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "STATIC_ROOT": f"{directory}/static",
        "MEDIA_ROOT": f"{directory}/media",
        "DJANGO_SETTINGS_MODULE": "cheap_passwords",
        "PYTHONPATH": f"{ROOT}/app:{ROOT}/runtime/src:{ROOT}/tests/api",
    }
    prepared = run(["-c", PREPARE], directory, env)
    assert prepared.returncode == 0, prepared.stderr
    command = ["uvicorn", "config.asgi:application", "--port", "0", "--lifespan", "off", "--no-access-log"]
    with serving(command, directory / "server", env=env) as server:
        server.says("Uvicorn running on")
        port = re.search(r"http://127\.0\.0\.1:(\d+)", server.log())[1]
        yield f"http://localhost:{port}/api/ninja", prepared.stdout.strip(), directory


@pytest.mark.parametrize("who", ["anybody", "mina"])
def test_the_api_answers_as_its_document_says(api, who):
    address, key, directory = api
    # Her token would not survive the operation that revokes it; test_api_contract.py looks at that one.
    hers = ["-H", f"Authorization: Bearer {key}", "--exclude-operation-id", "api_ninja_revoke_token"]
    options = hers if who == "mina" else []
    said = run([*COMMAND, *options, f"{address}/openapi.json"], directory)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "No issues found" in said.stdout
    made = httpx.get(f"{address}/posts").json()["count"] - 1
    assert (made > 0) == (who == "mina")
