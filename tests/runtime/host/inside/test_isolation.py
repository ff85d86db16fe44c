"""What a request, a stream, a socket or a task did to its thread or session is not there for another one.

Each case runs under Django's own handler and under ours: straight to PostgreSQL, where a session outlives a
transaction, and through PgBouncer.
"""

import asyncio
import contextlib
import os
import random
import threading
from contextlib import ExitStack
from types import ModuleType

import pytest
from asgi_client import Client
from asgiref.sync import sync_to_async
from psycopg import ClientCursor
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from waiting import until

NUMBER = 40 if os.environ.get("FULL") else 20
AT_ONCE = 10
ALIASES = ("default", "replica")

# how a session is altered, and what tells of it: nothing, or the mark of who did it
STATES = {
    "set": ("SET lean.mark = '{0}'", "SELECT nullif(current_setting('lean.mark', true), '')"),
    "set_config": (
        "SELECT set_config('lean.mark', '{0}', false)",
        "SELECT nullif(current_setting('lean.mark', true), '')",
    ),
    "set role": ("SET ROLE mark_{0}", "SELECT nullif(current_user, 'test')"),
    "search_path": (
        "SET search_path = mark_{0}, public",
        "SELECT substring(current_setting('search_path') from 'mark_\\d+')",
    ),
    "temporary table": (
        "CREATE TEMPORARY TABLE IF NOT EXISTS mark AS SELECT 'mark_{0}' AS name",
        "SELECT obj_description(to_regclass('pg_temp.mark'))",
    ),
    "advisory lock": (
        "SELECT pg_advisory_lock({0})",
        "SELECT 'mark_' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "prepared statement": (
        "PREPARE mark_{0} AS SELECT 1",
        "SELECT name FROM pg_prepared_statements WHERE name LIKE 'mark%'",
    ),
    "by a function": (
        "SELECT lean_mark('mark_{0}')",
        "SELECT nullif(current_setting('lean.mark', true), '')",
    ),
    "listen": ("LISTEN mark_{0}", "SELECT pg_listening_channels()"),
    "cursor with hold": (
        "DECLARE mark_{0} CURSOR WITH HOLD FOR SELECT 1",
        "SELECT name FROM pg_cursors WHERE name LIKE 'mark%'",
    ),
}


@pytest.fixture(scope="module")
def marks(server):
    """What the states need: a role and a schema for each request, a function."""
    for number in range(NUMBER):
        server.execute(f"CREATE ROLE mark_{number}")
        server.execute(f"CREATE SCHEMA mark_{number}")
    server.execute(
        "CREATE FUNCTION lean_mark(text) RETURNS text LANGUAGE sql"
        " AS $$SELECT set_config('lean.mark', $1, false)$$"
    )
    yield
    server.execute("DROP FUNCTION lean_mark")
    for number in range(NUMBER):
        server.execute(f"DROP SCHEMA mark_{number}")
        server.execute(f"DROP ROLE mark_{number}")


@pytest.fixture
def directly(django, monkeypatch):
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "PORT", "5432")
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)


@pytest.fixture(params=["django", "lean"])
def serve(request, directly, monkeypatch):
    """`serve(view)` gives a function that asks it, by this handler."""
    from django.core.handlers.asgi import ASGIHandler
    from django.db import connections
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime import threads
    from pergola_runtime.lean import LeanHandler

    if request.param == "lean":
        threads.open_pool()
        monkeypatch.setattr(threads, "pool", threads.Pool(3))
        monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 10)
    with ExitStack() as until_the_end:

        def serving(view, middleware=()):
            urls = ModuleType("urls")
            urls.urlpatterns = [path("", view)]
            until_the_end.enter_context(override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=urls))
            return Client(ASGIHandler() if request.param == "django" else LeanHandler())

        serving.handler = request.param
        yield serving


class Session:
    """What tells of this thread's session, its connection and the thread itself."""

    def __init__(self, state):
        self.alters, self.tells = STATES[state]
        self.here = threading.local()

    def look(self):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(self.tells)
            row = cursor.fetchone()
        return {
            "session": row and row[0] and str(row[0]).removeprefix("mark_"),
            "connection": getattr(connection, "mark", None),
            "thread": getattr(self.here, "mark", None),
        }

    def alter(self, number):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(self.alters.format(number))
            if "TEMPORARY" in self.alters:
                cursor.execute(f"COMMENT ON TABLE pg_temp.mark IS 'mark_{number}'")
        self.here.mark = connection.mark = number
        return self.look()


async def at_once(client):
    """Some requests at once, then some more, so that threads and connections serve several."""

    async def ask(number):
        await asyncio.sleep(random.random() / 50)
        return await client.request("GET", f"/?{number}")

    waiting = asyncio.Semaphore(AT_ONCE)

    async def in_turn(number):
        async with waiting:
            return await ask(number)

    return await asyncio.gather(*(in_turn(number) for number in range(NUMBER)))


async def until_all_threads_are_free():
    from pergola_runtime import threads

    await until(lambda: not threads.pool or len(threads.pool.free) == threads.pool.size, threads.statistics)


async def pause():
    await asyncio.sleep(random.random() / 20)


def ask_by(way, serve, session, begins, goes_on, wrong):
    """Send the requests to a view of this kind, which calls `begins(number)` and `goes_on(number)`.

    With `background`, a task calls `begins` after its request has ended, and then looks for marks of others.
    Each failure is added to `wrong`.
    """
    from django.db import connections
    from django.http import HttpResponse, StreamingHttpResponse

    tasks = []

    def finds_nothing_of_others(number):
        if not {None, number}.issuperset(session.look().values()):
            wrong.append((way, number, session.look()))
        close_if_djangos()

    def close_if_djangos():
        """A task that outlives its request has another thread for each call under Django's handler.

        Nothing closes their connections (docs/async-django.md).
        """
        if serve.handler == "django":
            connections.close_all()

    async def plain(request):
        number = request.META["QUERY_STRING"]
        await sync_to_async(begins)(number)
        for _ in range(3):
            await pause()
            await sync_to_async(goes_on)(number)
        return HttpResponse("done")

    async def stream(request):
        number = request.META["QUERY_STRING"]
        await sync_to_async(begins)(number)

        async def parts():
            for _ in range(3):
                await pause()
                await sync_to_async(goes_on)(number)
                yield "part "
            yield "done"

        return StreamingHttpResponse(parts())

    def synchronous(request):
        number = request.META["QUERY_STRING"]
        begins(number)
        goes_on(number)
        return HttpResponse("done")

    async def background(request):
        number = request.META["QUERY_STRING"]

        async def task(request):
            await asyncio.wait([request])
            await sync_to_async(lambda: (begins(number), close_if_djangos()))()
            for _ in range(3):
                await pause()
                await sync_to_async(finds_nothing_of_others)(number)

        tasks.append(asyncio.create_task(task(asyncio.current_task())))
        return HttpResponse("done")

    async def go():
        answers = await at_once(serve(view))
        await asyncio.gather(*tasks)
        tasks.clear()  # a task's thread is free when nothing knows the task any more
        await until_all_threads_are_free()
        return answers

    view = {"plain": plain, "stream": stream, "synchronous": synchronous, "background": background}[way]
    answers = asyncio.run(go())
    assert [answer.status for answer in answers] == [200] * NUMBER
    assert all(answer.body.endswith(b"done") for answer in answers)


WAYS = ["plain", "stream", "synchronous", "background"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", WAYS)
def test_no_session_is_anothers(serve, marks, state, way):
    session, wrong = Session(state), []

    def begins(number):
        if session.look()["session"] is not None:
            wrong.append(("at the beginning", number, session.look()))
        expect(number, session.alter(number))

    def goes_on(number):
        expect(number, session.look())

    def expect(number, found):
        if found != dict.fromkeys(("session", "connection", "thread"), str(number)):
            wrong.append((way, number, found))

    ask_by(way, serve, session, begins, goes_on, wrong)
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", WAYS)
def test_no_session_is_anothers_through_pgbouncer(serve, marks, monkeypatch, state, way):
    """There a session is a request's own for one transaction; its thread and its connection to the end."""
    from django.db import connections, transaction

    monkeypatch.setitem(connections.settings["default"], "PORT", "6432")
    session, wrong = Session(state), []

    def begins(number):
        if session.look()["session"] is not None:
            wrong.append(("at the beginning", number, session.look()))
        with transaction.atomic():
            session.alter(number)
        goes_on(number)
        if "TEMPORARY" not in session.alters:  # which takes two statements
            session.alter(number)
        goes_on(number)

    def goes_on(number):
        found = session.look()
        if found.pop("session") not in (None, number) or found != {"connection": number, "thread": number}:
            wrong.append((number, session.look()))

    ask_by(way, serve, session, begins, goes_on, wrong)
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("handler", ["django", "lean"])
@pytest.mark.parametrize("port", ["5432", "6432"], ids=["directly", "through PgBouncer"])
@pytest.mark.parametrize("state", STATES)
def test_no_session_is_another_sockets(directly, marks, monkeypatch, state, port, handler):
    from django.db import close_old_connections, connections, transaction
    from pergola_runtime import choice, threads

    monkeypatch.setenv("PERGOLA_HANDLER", handler)
    monkeypatch.setitem(connections.settings["default"], "PORT", port)
    if handler == "lean":
        threads.open_pool()
        monkeypatch.setattr(threads, "pool", threads.Pool(3))
        monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 10)
    session = Session(state)
    wrong = []

    def begins(number):
        if any(session.look().values()):
            wrong.append(("at the beginning", number, session.look()))
        with transaction.atomic():  # some states take two statements
            session.alter(number)
        goes_on(number)

    def goes_on(number):
        found = session.look()
        sessions = [number] if port == "5432" else [None, number]  # the socket's for one transaction
        if found.pop("session") not in sessions or found != {"connection": number, "thread": number}:
            wrong.append((number, session.look()))

    async def consumer(scope, receive, send):
        await sync_to_async(begins)(scope["number"])
        for _ in range(3):
            await pause()
            await sync_to_async(goes_on)(scope["number"])
        if handler == "django":  # as Channels' database_sync_to_async() does
            await sync_to_async(close_old_connections)()

    async def go():
        application = choice.consumers(consumer)
        scopes = [{"type": "websocket", "number": str(number)} for number in range(NUMBER)]
        for some in (scopes[::2], scopes[1::2]):  # at the same time, and after others have ended
            await asyncio.gather(*(application(scope, None, None) for scope in some))
            if handler == "lean":
                await until_all_threads_are_free()

    asyncio.run(go())
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("before", ["its request made a call", "its request made none"])
def test_a_task_that_outlives_its_request_finds_nothing_of_others(serve, before):
    """It begins when its request has ended and others have used the threads and connections."""
    from django.db import connections
    from django.http import HttpResponse

    session = Session("set")
    seen, tasks, ended = [], [], asyncio.Event()

    def look():
        seen.append(session.look())
        connections.close_all()

    async def task():
        await ended.wait()
        await sync_to_async(look)()

    async def view(request):
        number = request.META["QUERY_STRING"]
        if number == "0":
            tasks.append(asyncio.create_task(task()))
        if number != "0" or before == "its request made a call":
            await sync_to_async(session.alter)(number)
        return HttpResponse("done")

    async def go():
        client = serve(view)
        for number in range(AT_ONCE):
            assert (await client.request("GET", f"/?{number}")).body == b"done"
        ended.set()
        await asyncio.gather(*tasks)
        tasks.clear()
        await until_all_threads_are_free()

    asyncio.run(go())
    assert seen == [dict.fromkeys(("session", "connection", "thread"))]


def test_what_the_compiler_makes_leaves_a_connection_for_the_next(serve, server):
    """Or there would be nothing to keep."""
    from django.contrib.auth.models import User
    from django.db import connection, transaction
    from django.db.models import Count, F, Q
    from django.db.models.functions import Coalesce, Lower, Now, Upper
    from django.http import HttpResponse
    from pergola_runtime import sessions

    found = []

    def everything(request):
        number = request.META["QUERY_STRING"]
        user = User.objects.create(username=f"compiled {number}", email="a@example.org")
        with transaction.atomic(), transaction.atomic():
            User.objects.filter(pk=user.pk).update(first_name=Upper(F("username")))
            User.objects.bulk_create(
                [User(username=f"more {number} {i}") for i in range(3)], ignore_conflicts=True
            )
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            User.objects.filter(pk=user.pk).select_for_update().get()
            1 / 0  # noqa: B018
        list(User.objects.filter(Q(username__icontains="compiled") | Q(pk__in=[1, 2])).order_by("-pk")[:3])
        User.objects.annotate(name=Coalesce(Lower("first_name"), "username"), now=Now()).first()
        User.objects.values("is_staff").annotate(number=Count("pk")).aggregate(most=Count("number"))
        User.objects.filter(username__startswith=f"more {number} ").exists()
        User.objects.filter(username__startswith=f"more {number} ").delete()
        user.delete()
        found.append((sessions.altered(connection), connection.connection.info.backend_pid))
        return HttpResponse("done")

    client = serve(everything)

    async def go():
        return [await client.request("GET", f"/?{n}") for n in range(5)]

    assert [answer.body for answer in asyncio.run(go())] == [b"done"] * 5
    if serve.handler == "lean":
        assert {altered for altered, _ in found} == {False}
        assert len({pid for _, pid in found}) == 1


@pytest.fixture
def trigger(server):
    """A table of the database's own, whose trigger alters the session of what writes to it."""
    server.execute(
        "CREATE TABLE triggering (n int);"
        " CREATE FUNCTION lean_trigger() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN PERFORM set_config('lean.mark', 'mark_0', false); RETURN NEW; END$$;"
        " CREATE TRIGGER lean_trigger BEFORE INSERT ON triggering EXECUTE FUNCTION lean_trigger();"
        " GRANT ALL ON triggering TO PUBLIC"
    )
    yield
    server.execute("DROP TABLE triggering; DROP FUNCTION lean_trigger()")


def test_a_trigger_that_alters_the_session_reaches_no_other_through_pgbouncer(serve, monkeypatch, trigger):
    """It is not seen (sessions.py): PgBouncer resets the session after each transaction."""
    from django.db import connection, connections
    from django.http import HttpResponse

    monkeypatch.setitem(connections.settings["default"], "PORT", "6432")
    session = Session("set")

    def view(request):
        found = session.look()["session"]
        with connection.cursor() as cursor:
            cursor.execute('INSERT INTO "triggering" ("n") VALUES (%s)', [1])
        return HttpResponse(str(found))

    client = serve(view)

    async def go():
        return [(await client.request("GET", "/")).body for _ in range(5)]

    assert asyncio.run(go()) == [b"None"] * 5


class Remembers:
    """Middleware that puts into the thread who asks, and removes it behind the answer."""

    here = threading.local()

    def __new__(cls, get_response):
        from django.utils.deprecation import MiddlewareMixin

        class Remembering(MiddlewareMixin):
            def process_request(self, request):
                request.found = getattr(cls.here, "user", None)
                if request.META["QUERY_STRING"]:
                    cls.here.user = request.META["QUERY_STRING"]

            def process_response(self, request, response):
                vars(cls.here).clear()
                return response

        return Remembering(get_response)


@pytest.mark.parametrize("ends", ["answered", "the client goes", "an error of its stream"])
def test_what_middleware_removes_from_the_thread_is_in_no_other_request(serve, ends):
    from django.http import HttpResponse, StreamingHttpResponse

    begun = []

    async def parts():
        yield b"part"
        raise ValueError

    async def view(request):
        if request.META["QUERY_STRING"] and ends == "the client goes":
            begun.append(1)
            await asyncio.sleep(3600)
        if request.META["QUERY_STRING"] and ends == "an error of its stream":
            return StreamingHttpResponse(parts())
        return HttpResponse(str(request.found))

    client = serve(view, ("test_isolation.Remembers",))

    async def go():
        found = []
        for number in range(5):
            begun.clear()
            leaves = {"leaves_when": lambda: begun} if ends == "the client goes" else {}
            await client.request("GET", f"/?user-{number}", **leaves)
            await until_all_threads_are_free()
            found.append((await client.request("GET", "/")).body)
        return found

    assert asyncio.run(go()) == [b"None"] * 5


# what a thread of another kind may do to a connection whose request makes no more calls
BEHIND = {"BEGIN": "transaction", "SET lean.mark = 'mark_another'": "session", "SET ROLE mark_0": "role"}


@pytest.mark.parametrize("statement", BEHIND)
def test_what_is_done_to_a_connection_past_its_requests_thread_is_not_the_next_requests(
    serve, marks, statement
):
    from django.db import connection
    from django.http import HttpResponse

    def look():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_user, current_setting('lean.mark', true), now() = statement_timestamp()"
            )
            return cursor.fetchone(), connection.connection

    async def view(request):
        found, driver = await sync_to_async(look)()
        await asyncio.to_thread(driver.execute, statement)
        return HttpResponse(str(found))

    client = serve(view)

    async def go():
        found = []
        for _ in range(5):
            found.append((await client.request("GET", "/")).body)
            await until_all_threads_are_free()
        return found

    found = asyncio.run(go())
    assert len(set(found)) == 1, found


@pytest.mark.parametrize("way", ["settings", "engine"])
def test_a_request_has_the_login_that_it_chose(serve, monkeypatch, way):
    """As with a database or a user for each tenant: the connection of another login is not its own."""
    from django.db import connection
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.http import HttpResponse

    tenant, session = threading.local(), Session("set")
    original = DatabaseWrapper.get_connection_params

    def of_the_tenant(wrapper):
        return original(wrapper) | {"options": f"-c lean.mark=mark_{tenant.number}"}

    if way == "engine":
        monkeypatch.setattr(DatabaseWrapper, "get_connection_params", of_the_tenant)

    def view(request):
        number = tenant.number = request.META["QUERY_STRING"]
        if way == "settings":
            options = connection.settings_dict["OPTIONS"] | {"options": f"-c lean.mark=mark_{number}"}
            monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        return HttpResponse(session.look()["session"])

    client = serve(view)

    async def go():
        return [(await client.request("GET", f"/?{number % 3}")).body for number in range(9)]

    assert asyncio.run(go()) == [str(number % 3).encode() for number in range(9)]


def test_rows_that_are_sent_may_alter_the_session_of_another_alias(serve, monkeypatch):
    """psycopg asks for them while it sends."""
    from django.contrib.auth.models import Group
    from django.db import connections, transaction
    from django.http import HttpResponse

    monkeypatch.setitem(connections.settings, "replica", connections.settings["default"].copy())

    def rows():
        with connections["replica"].cursor() as cursor:
            cursor.execute("SET lean.mark = 'mark_0'")
        yield ("sent",)

    def view(request):
        with connections["replica"].cursor() as cursor:
            cursor.execute(STATES["set"][1])
            found = cursor.fetchone()
        Group.objects.filter(name="sent").delete()
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.executemany('INSERT INTO "auth_group" ("name") VALUES (%s)', rows())
            transaction.set_rollback(True)
        return HttpResponse(str(found))

    client = serve(view)

    async def go():
        return [(await client.request("GET", "/")).body for _ in range(3)]

    assert asyncio.run(go()) == [b"(None,)"] * 3


def register_loader(driver):
    from psycopg.types.string import TextLoader

    driver.adapters.register_loader("float8", TextLoader)


# what a request may do to a connection without a word to the server
CLIENT_SIDE = {
    "loader": register_loader,
    "json": lambda driver: set_json_loads(lambda data: "another's", driver),
    "row_factory": lambda driver: setattr(driver, "row_factory", dict_row),
    "server_cursor_factory": lambda driver: setattr(driver, "server_cursor_factory", ClientCursor),
    "notice handler": lambda driver: driver.add_notice_handler(print),
    "prepared_max": lambda driver: setattr(driver, "prepared_max", 1),
    "autocommit": lambda driver: setattr(driver, "autocommit", False),
}


@pytest.mark.parametrize("change", CLIENT_SIDE)
def test_a_connection_that_is_altered_in_the_client_serves_no_other(serve, change):
    from django.db import connection
    from django.http import HttpResponse

    def view(request):
        connection.ensure_connection()
        CLIENT_SIDE[change](connection.connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            found = cursor.fetchone()
        if change == "autocommit":
            connection.connection.commit()
        return HttpResponse(str(found))

    client = serve(view)

    async def go():
        return [(await client.request("GET", "/")).body for _ in range(3)]

    assert len(set(asyncio.run(go()))) == 3


@pytest.mark.parametrize("way", ["to_thread", "thread_sensitive=False"])
def test_calls_in_other_threads_leave_no_connection_open(serve, server, way):
    """And find no dead one."""
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    async def view(request):
        if way == "to_thread":
            number = await asyncio.to_thread(User.objects.count)
        else:
            number = await sync_to_async(User.objects.count, thread_sensitive=False)()
        return HttpResponse(str(number))

    def clients():
        query = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in server.execute(query).fetchall()}

    async def go():
        before = clients()
        answers = await at_once(client)
        assert {answer.status for answer in answers} == {200}
        await until(lambda: not clients() - before, "PostgreSQL's processes end")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s)", [[*clients()]]
        )
        return await at_once(client)

    from pergola_runtime.behind_nginx import behind_nginx

    client = serve(view)
    client.application = behind_nginx(client.application)
    answers = asyncio.run(go())
    assert {answer.status for answer in answers} == {200}


@pytest.fixture
def rows(server):
    """One row of each owner, which the others cannot see."""
    server.execute("CREATE ROLE lean_reader")
    server.execute("CREATE TABLE lean_rows AS SELECT n::text AS owner FROM generate_series(0, 99) n")
    server.execute("GRANT SELECT ON lean_rows TO lean_reader")
    server.execute("ALTER TABLE lean_rows ENABLE ROW LEVEL SECURITY")
    server.execute("CREATE POLICY own ON lean_rows USING (owner = current_setting('lean.owner', true))")
    yield
    server.execute("DROP TABLE lean_rows")
    server.execute("DROP ROLE lean_reader")


@pytest.mark.parametrize("way", ["plain", "stream"])
def test_row_level_security_shows_each_request_its_own_rows(serve, rows, way):
    from django.db import connection
    from django.http import HttpResponse, StreamingHttpResponse

    def begins(number):
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE lean_reader")
            cursor.execute("SELECT set_config('lean.owner', %s, false)", [number])

    def read():
        with connection.cursor() as cursor:
            cursor.execute("SELECT owner FROM lean_rows")
            return "".join(f"{owner} " for (owner,) in cursor.fetchall())

    async def plain(request):
        await sync_to_async(begins)(request.META["QUERY_STRING"])
        await pause()
        return HttpResponse(await sync_to_async(read)())

    async def stream(request):
        await sync_to_async(begins)(request.META["QUERY_STRING"])

        async def parts():
            for _ in range(3):
                await pause()
                yield await sync_to_async(read)()

        return StreamingHttpResponse(parts())

    answers = asyncio.run(at_once(serve({"plain": plain, "stream": stream}[way])))
    times = {"plain": 1, "stream": 3}[way]
    assert [answer.body.decode() for answer in answers] == [f"{n} " * times for n in range(NUMBER)]


pinned = threading.local()


class PinnedRouter:
    def db_for_read(self, model, **hints):
        return getattr(pinned, "alias", "default")


class Pins:
    """Each request to the alias that it names, as middleware does that sends a user's reads to one server."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        pinned.alias = ALIASES[int(request.META["QUERY_STRING"]) % 2]
        return self.get_response(request)


@pytest.mark.parametrize("way", ["plain", "stream", "synchronous"])
def test_a_request_stays_at_the_replica_that_it_is_pinned_to(serve, monkeypatch, way):
    from django.contrib.auth.models import User
    from django.db import connections
    from django.http import HttpResponse, StreamingHttpResponse
    from django.test import override_settings

    monkeypatch.setitem(connections.settings, "replica", connections.settings["default"].copy())

    def read():
        return User.objects.all().db

    async def plain(request):
        await pause()
        return HttpResponse(await sync_to_async(read)())

    async def stream(request):
        async def parts():
            for _ in range(3):
                await pause()
                yield await sync_to_async(read)()

        return StreamingHttpResponse(parts())

    def synchronous(request):
        return HttpResponse(read())

    view = {"plain": plain, "stream": stream, "synchronous": synchronous}[way]
    with override_settings(DATABASE_ROUTERS=["test_isolation.PinnedRouter"]):
        answers = asyncio.run(at_once(serve(view, ("test_isolation.Pins",))))
    times = {"stream": 3}.get(way, 1)
    assert [answer.body.decode() for answer in answers] == [ALIASES[n % 2] * times for n in range(NUMBER)]


@pytest.fixture
def pooled(directly, monkeypatch):
    """Our handler with psycopg's pool. Django's hands a session on to the next request with it."""
    from django.db import connections
    from pergola_runtime import threads

    threads.open_pool()
    monkeypatch.setattr(threads, "pool", threads.Pool(3))
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {"pool": {"max_size": AT_ONCE}})
    yield
    connections["default"].close_pool()


@pytest.mark.parametrize("state", [None, *STATES])
def test_psycopgs_pool_gets_no_connection_back_whose_session_was_altered(pooled, marks, state):
    from django.db import connection
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime.lean import LeanHandler

    session = Session(state or "set")
    found = []

    def view(request):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
        found.append((pid, session.look()["session"]))
        if state:
            session.alter(request.META["QUERY_STRING"])
        return HttpResponse("done")

    urls = ModuleType("urls")
    urls.urlpatterns = [path("", view)]
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[]):
        answers = asyncio.run(at_once(Client(LeanHandler())))
    assert {answer.body for answer in answers} == {b"done"}
    assert {mark for _, mark in found} == {None}
    assert len({pid for pid, _ in found}) == NUMBER if state else len({pid for pid, _ in found}) <= AT_ONCE
