"""What else the runtime brings: the choice of handler, Channels' calls, PostgreSQL without a thread."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from asgiref.sync import sync_to_async
from waiting import PATIENCE, until

ASK = "import leansite, pergola_runtime.choice as h; print(type(h.get_asgi_application()).__name__)"
COLLECTOR = """
import gc, leansite, pergola_runtime.choice as h
handler = h.get_asgi_application()
print(gc.get_threshold()[0], any(one is handler for one in gc.get_objects()))
"""


def start(ask=ASK, **environment):
    return subprocess.run(
        [sys.executable, "-c", ask],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "leansite"} | environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "handler"),
    [
        ({}, "LeanHandler"),
        ({"PERGOLA_HANDLER": "auto"}, "LeanHandler"),
        ({"PERGOLA_HANDLER": "auto", "LEAN_AGE": "600"}, "ASGIHandler"),
        ({"PERGOLA_HANDLER": "lean"}, "LeanHandler"),
        ({"PERGOLA_HANDLER": "django"}, "ASGIHandler"),
    ],
)
def test_the_environment_names_the_handler(environment, handler):
    done = start(**environment)
    assert done.stdout.strip() == handler, done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PERGOLA_HANDLER": "foo"}, "PERGOLA_HANDLER=foo is not auto, lean or django: set app_handler"),
        ({"PERGOLA_THREADS": "0"}, "PERGOLA_THREADS=0 is not a whole number of 1 or more: set app_threads"),
        (
            {"PERGOLA_THREADS": "many"},
            "PERGOLA_THREADS=many is not a whole number of 1 or more: set app_threads",
        ),
        (
            {"PERGOLA_HANDLER": "lean", "LEAN_AGE": "60"},
            "has CONN_MAX_AGE=60, and pergola_runtime's handler keeps a",
        ),
        ({"LEAN_URLS": "nowhere"}, "No module named 'nowhere'"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_loaded_in_one_line(environment, said):
    done = start(**environment)
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("handler", "said"), [("lean", "10000 False"), ("django", f"{gc.get_threshold()[0]} True")]
)
def test_the_garbage_collector_runs_less_often_and_leaves_what_was_loaded_out(handler, said):
    done = start(COLLECTOR, PERGOLA_HANDLER=handler)
    assert done.stdout.strip() == said, done.stderr


def test_a_consumer_holds_a_thread_of_its_own_to_its_end(django, monkeypatch):
    from django.db import connection, transaction
    from pergola_runtime import threads
    from pergola_runtime.choice import consumers

    threads.open_pool()
    monkeypatch.setattr(threads, "pool", threads.Pool(3))
    meeting = threading.Barrier(2)
    seen = []

    def call():
        meeting.wait(PATIENCE)  # two at once, or it breaks
        seen.append((threading.get_ident(), connection.get_autocommit()))
        transaction.set_autocommit(False)

    async def consumer(scope, receive, send):
        for _ in range(3):
            await sync_to_async(call)()

    async def go():
        application = consumers(consumer)
        await asyncio.gather(*(application({"type": "websocket"}, None, None) for _ in range(2)))
        await until(lambda: len(threads.pool.free) == threads.pool.size, "the threads are given back")

    asyncio.run(go())
    assert len(set(seen)) == 4  # two threads, each with a transaction of its own from the first call on
    assert [autocommit for _, autocommit in seen].count(True) == 2
    assert len({thread for thread, _ in seen}) == 2


@pytest.mark.parametrize("asked", ["django", "auto"])
def test_consumers_have_a_context_of_their_own_with_djangos_handler_as_well(django, monkeypatch, asked):
    from pergola_runtime import choice

    monkeypatch.setenv("PERGOLA_HANDLER", asked)
    monkeypatch.setattr(choice, "untested", lambda *packages: "Django 7.0 is too new")
    assert choice.choose()[0] == "django"
    found = []

    async def consumer(scope, receive, send):
        from asgiref.sync import SyncToAsync

        found.append(SyncToAsync.thread_sensitive_context.get(None))

    application = choice.consumers(consumer)

    async def go():
        await asyncio.gather(*(application({"type": "websocket"}, None, None) for _ in range(2)))

    asyncio.run(go())
    assert None not in found
    assert len(set(map(id, found))) == 2


@pytest.fixture
def asyncdb(django):
    from pergola_runtime import asyncdb

    return asyncdb


def test_the_async_pool_asks_without_a_thread_commits_by_itself_and_is_closed_with_the_loop(asyncdb, server):
    async def one(n):
        async with asyncdb.connection() as database:
            row = await (await database.execute("SELECT %s::int, pg_backend_pid()", [n])).fetchone()
            return row[0]

    async def go():
        before = threading.active_count()
        assert await asyncio.gather(*(one(n) for n in range(50))) == list(range(50))
        assert threading.active_count() == before
        async with asyncdb.connection() as database:
            await database.execute("CREATE TABLE kept AS SELECT 1 AS n")
        with server.cursor() as cursor:
            cursor.execute("SELECT n FROM kept")
            cursor.execute("DROP TABLE kept")
        (pool, _), *others = asyncdb.pools.values()
        assert not others
        return pool

    pool = asyncio.run(go())
    assert pool.closed
    assert not asyncdb.pools
    asyncio.run(go())  # another loop has a pool of its own


def test_the_async_pool_closes_unused_connections_within_the_documented_age(asyncdb, monkeypatch):
    """psycopg's pool closes one connection each max_idle seconds, not all of them."""
    from pergola_runtime import choice

    monkeypatch.setattr(choice, "MAX_AGE", 1)
    pool = asyncdb.make_pool()
    assert pool.max_lifetime + (pool.max_size + 1) * pool.max_idle == choice.MAX_AGE
    sizes, shrink, all_idle = [], pool._shrink_pool, asyncio.Event()

    async def shrink_and_look():
        if all_idle.is_set():
            await shrink()
            sizes.append(pool.get_stats()["pool_size"])

    async def use():
        async with pool.connection() as database:
            await database.execute("SELECT pg_sleep(0.05)")

    async def go():
        monkeypatch.setattr(pool, "_shrink_pool", shrink_and_look)
        async with pool:
            await asyncio.gather(*(use() for _ in range(20)))
            await until(lambda: pool.get_stats()["pool_available"] == pool.max_size, pool.get_stats)
            all_idle.set()
            await until(lambda: sizes and not sizes[-1], sizes.copy)
        assert len(sizes) <= pool.max_size + 1

    asyncio.run(go())


@pytest.mark.parametrize("option", ["assume_role", "isolation_level"])
def test_what_the_async_pool_does_not_know_is_refused(asyncdb, monkeypatch, option):
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {option: "x"})

    async def ask():
        async with asyncdb.connection():
            pass

    with pytest.raises(ImproperlyConfigured, match=f"asyncdb does not know Django's option {option}"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "statement",
    ["SET lean.mark = 'x'", "SELECT set_config('lean.mark', 'x', false)", "SELECT pg_advisory_lock(7)"],
)
def test_the_async_pool_does_not_use_a_session_that_was_altered(asyncdb, monkeypatch, statement):
    from django.db import connections

    monkeypatch.setitem(connections["default"].settings_dict, "PORT", "5432")

    async def look(*more):
        async with asyncdb.connection() as database:
            cursor = await database.execute("SELECT pg_backend_pid(), current_setting('lean.mark', true)")
            found = await cursor.fetchone()
            # beside others, which leave nothing
            await asyncio.gather(*(database.execute(one) for one in ("SELECT 1", *more, "SELECT 2")))
            async with database.transaction():
                await database.execute("SELECT 1")
            return found

    async def go():
        first, second, third = await look(), await look(statement), await look()
        assert first == second
        assert third[0] != first[0]
        assert not third[1]

    asyncio.run(go())


def test_the_async_pool_does_not_use_what_the_server_closed(asyncdb):
    import socket as sockets

    async def ask():
        async with asyncdb.connection() as database:
            await database.execute("SELECT 1")
            return database.fileno()

    async def go():
        number = await ask()
        with sockets.socket(fileno=sockets.dup(number)) as copy:
            copy.shutdown(sockets.SHUT_RDWR)
        await ask()

    asyncio.run(go())


def test_the_async_pool_goes_on_where_a_column_gets_another_type(asyncdb, server, monkeypatch):
    """What is prepared, PostgreSQL refuses from then on. Through PgBouncer nothing stays prepared."""
    from django.db import connections

    monkeypatch.setitem(connections["default"].settings_dict, "PORT", "5432")
    server.execute("CREATE TABLE widened AS SELECT 1 AS id, 'x'::varchar(5) AS name")
    try:

        async def ask(database):
            cursor = await database.execute("SELECT name FROM widened WHERE id = %s", [1])
            return (await cursor.fetchone())[0]

        async def go():
            async with asyncdb.connection() as database:
                for _ in range(10):
                    assert await ask(database) == "x"
                server.execute("ALTER TABLE widened ALTER name TYPE varchar(9)")
                with pytest.raises(psycopg.errors.FeatureNotSupported):
                    async with database.transaction():
                        await ask(database)
                for _ in range(3):
                    assert await ask(database) == "x"

        asyncio.run(go())
    finally:
        server.execute("DROP TABLE widened")


def test_connections_are_kept_where_the_environment_says_so_and_the_project_does_not(django, monkeypatch):
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections
    from pergola_runtime.lean import keep_connections

    default = connections.settings["default"]
    monkeypatch.setitem(default, "CONN_MAX_AGE", 0)
    keep_connections({})
    assert default["CONN_MAX_AGE"] == 0
    keep_connections({"PERGOLA_CONN_MAX_AGE": "7"})
    assert default["CONN_MAX_AGE"] == 7
    keep_connections({"PERGOLA_CONN_MAX_AGE": "9"})
    assert default["CONN_MAX_AGE"] == 7
    for wrong in ("60", "-1", "long"):
        with pytest.raises(ImproperlyConfigured, match="PERGOLA_CONN_MAX_AGE"):
            keep_connections({"PERGOLA_CONN_MAX_AGE": wrong})
