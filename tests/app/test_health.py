"""The sample behind its real server, with parts that are really missing."""

import asyncio
import contextlib
import json
import shutil
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app.servers import ROOT, gunicorn, manage, parts, redis_server
from core import health

APP = ROOT / "app"


def ask(server, path="/readyz"):
    head, body = server.get(path).split(b"\r\n\r\n", 1)
    head = head.decode().lower()
    assert "cache-control: max-age=0, no-cache, no-store" in head
    for secret in ("hush", "127.0.0.1", str(server.path.parent)):
        assert secret not in body.decode()
    assert "hush" not in server.log()
    return int(head.split()[1]), json.loads(body)


WELL = {"database": "ok", "migrations": "ok", "redis": "ok"}
READY = (200, {"ready": True, "checks": WELL})


def unready(**checks):
    return 503, {"ready": False, "checks": WELL | checks}


def test_it_is_ready_with_every_part_there_and_says_which_one_is_not(tmp_path):
    """One server throughout: a part that comes back is seen without a restart."""
    database, migrated = tmp_path / "db.sqlite3", tmp_path / "migrated.sqlite3"
    manage(parts(migrated), "migrate", "--database", "direct", "--verbosity", "0")
    shutil.copy(migrated, database)
    (tmp_path / "redis").mkdir()
    env = parts(database, f"unix://:hush@{tmp_path}/redis/redis.sock")
    with gunicorn(tmp_path / "web.sock", "config.asgi:application", cwd=APP, env=env) as server:
        assert ask(server) == unready(redis="ConnectionError")
        with redis_server(tmp_path / "redis", password="hush"):
            assert ask(server) == READY
            with contextlib.closing(sqlite3.connect(database)) as connection, connection:
                assert connection.execute("DELETE FROM django_migrations WHERE app = 'core'").rowcount
            assert ask(server) == unready(migrations="NotMigratedError")
            shutil.copy(migrated, database)
            assert ask(server) == READY
        assert ask(server) == unready(redis="ConnectionError")


def test_a_database_that_refuses_or_hangs_holds_neither_the_answer_nor_the_process(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and refuses, until it listens
        url = f"postgresql://app:hush@127.0.0.1:{silent.getsockname()[1]}/app"
        env = {"DATABASE_URL": url, "DATABASE_DIRECT_URL": url}
        with gunicorn(tmp_path / "web.sock", "config.asgi:application", cwd=APP, env=env) as server:
            refused = dict.fromkeys(("database", "migrations"), "OperationalError")
            assert ask(server) == unready(**refused, redis="ConnectionError")
            assert ask(server, "/livez") == (200, {"live": True})
            silent.listen()
            hangs = dict.fromkeys(("database", "migrations"), "timeout")
            assert ask(server) == unready(**hangs, redis="ConnectionError")
            assert ask(server, "/livez") == (200, {"live": True})


def test_many_who_ask_at_once_wait_for_the_same_look(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "redis.sock"))
        silent.listen()
        env = parts(tmp_path / "db.sqlite3", f"unix://:hush@{tmp_path}/redis.sock")
        with gunicorn(tmp_path / "web.sock", "config.asgi:application", cwd=APP, env=env) as server:
            with ThreadPoolExecutor(20) as many:
                answers = list(many.map(ask, [server] * 20))
            assert answers == [unready(migrations="NotMigratedError", redis="timeout")] * 20
            silent.settimeout(1)
            silent.accept()[0].close()
            with pytest.raises(TimeoutError):
                silent.accept()


async def test_what_answers_in_time_is_ready_however_late_the_event_loop_hears_of_it(monkeypatch):
    monkeypatch.setattr(health, "SECONDS", 0.1)
    monkeypatch.setitem(health.CHECKS, "redis", lambda: None)
    asked = asyncio.ensure_future(health.outcome("redis"))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - something else has the event loop
    assert await asked == "ok"


def test_releases_share_the_static_files_but_not_the_list_of_their_names(tmp_path):
    env = {"STATIC_ROOT": str(tmp_path / "static")}
    ours = shutil.ignore_patterns("*.sqlite3", "staticfiles.json")
    manifests = []
    for release in ("one", "two"):
        source = Path(shutil.copytree(APP, tmp_path / release, ignore=ours))
        with (source / "core/static/core/site.css").open("a") as file:
            file.write(f"/* {release} */")
        # what others bring is many times as much, and no different
        others = ("--ignore=admin", "--ignore=ninja", "--ignore=rest_framework")
        manage(env, "collectstatic", "--no-input", *others, cwd=source)
        manifests.append(json.loads((source / "staticfiles.json").read_text())["paths"])
    one, two = (manifest["core/site.css"] for manifest in manifests)
    assert one != two
    assert (tmp_path / "static" / one).is_file()
    assert (tmp_path / "static" / two).is_file()
    assert not (tmp_path / "static" / "staticfiles.json").exists()
