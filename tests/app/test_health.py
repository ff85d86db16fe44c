"""The sample behind its real server, with parts that are really missing."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from app.servers import ROOT, gunicorn, manage, parts

APP = ROOT / "app"


@pytest.fixture
def environment(tmp_path, migrated):
    return parts(shutil.copy(migrated, tmp_path))


def ask(tmp_path, env, path="/readyz"):
    with gunicorn(tmp_path / "web.sock", "config.asgi:application", cwd=APP, env=env) as server:
        head, body = server.get(path).split(b"\r\n\r\n", 1)
    head = head.decode().lower()
    assert "cache-control: max-age=0, no-cache, no-store" in head
    for secret in ("hush", "127.0.0.1", str(tmp_path)):
        assert secret not in body.decode()
    assert "hush" not in server.log()
    return int(head.split()[1]), json.loads(body)


def test_all_is_well_with_every_part_there(tmp_path, environment, redis):
    status, answer = ask(tmp_path, environment | {"REDIS_URL": redis})
    assert status == 200
    assert answer == {"ready": True, "checks": {"database": "ok", "migrations": "ok", "redis": "ok"}}


def test_without_redis_it_is_not_ready_and_says_so(tmp_path, environment):
    status, answer = ask(tmp_path, environment)
    assert status == 503
    assert answer == {
        "ready": False,
        "checks": {"database": "ok", "migrations": "ok", "redis": "ConnectionError"},
    }


def test_a_migration_that_is_not_applied_makes_it_not_ready(tmp_path, environment):
    manage(environment, "migrate", "core", "zero", "--verbosity", "0")
    status, answer = ask(tmp_path, environment)
    assert status == 503
    assert answer["checks"]["database"] == "ok"
    assert answer["checks"]["migrations"] == "NotMigratedError"


def test_a_database_that_refuses_makes_it_not_ready(tmp_path, environment):
    environment["DATABASE_URL"] = "postgresql://app:hush@127.0.0.1:1/app"
    status, answer = ask(tmp_path, environment)
    assert status == 503
    assert answer["checks"]["database"] == "OperationalError"


def test_a_database_that_hangs_does_not_hold_the_answer(tmp_path, environment):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        environment["DATABASE_URL"] = f"postgresql://app:hush@127.0.0.1:{port}/app"
        status, answer = ask(tmp_path, environment)
    assert status == 503
    assert answer["checks"] == {"database": "timeout", "migrations": "timeout", "redis": "ConnectionError"}


def test_the_process_is_alive_without_any_part(tmp_path, environment):
    environment["DATABASE_URL"] = "postgresql://app:hush@127.0.0.1:1/app"
    assert ask(tmp_path, environment, "/livez") == (200, {"live": True})


def test_releases_share_the_static_files_but_not_the_list_of_their_names(tmp_path, environment):
    env = environment | {"STATIC_ROOT": str(tmp_path / "static")}
    ours = shutil.ignore_patterns("__pycache__", "*.sqlite3", "staticfiles.json")
    manifests = []
    for release in ("one", "two"):
        source = Path(shutil.copytree(APP, tmp_path / release, ignore=ours))
        with (source / "core/static/core/site.css").open("a") as file:
            file.write(f"/* {release} */")
        manage(env, "collectstatic", "--no-input", cwd=source)
        manifests.append(json.loads((source / "staticfiles.json").read_text())["paths"])
    one, two = (manifest["core/site.css"] for manifest in manifests)
    assert one != two
    assert (tmp_path / "static" / one).is_file()
    assert (tmp_path / "static" / two).is_file()
    assert not (tmp_path / "static" / "staticfiles.json").exists()
