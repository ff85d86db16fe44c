"""What a request, a stream, a socket or a task did to its thread or session is not there for another one.

Each case runs under Django's own handler and under ours, straight to PostgreSQL, where a session outlives a
transaction.
"""

import asyncio
import contextlib
import random
import threading
import time
from contextlib import ExitStack
from types import ModuleType

import pytest
from asgi_client import Client
from asgiref.sync import sync_to_async

NUMBER = 40
AT_ONCE = 10

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
    from pergola_runtime.handler import LeanHandler

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


async def pause():
    await asyncio.sleep(random.random() / 20)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", ["plain", "stream", "synchronous", "background"])
def test_no_session_is_anothers(serve, marks, state, way):
    from django.http import HttpResponse, StreamingHttpResponse

    if way == "background" and serve.handler == "django":
        return  # what outlives its request leaves its connections open there (docs/async-django.md)
    session = Session(state)
    wrong, tasks = [], []

    def begins(number):
        if session.look()["session"] is not None:
            wrong.append(("at the beginning", number, session.look()))
        expect(number, session.alter(number))

    def goes_on(number):
        expect(number, session.look())

    def expect(number, found):
        if found != dict.fromkeys(("session", "connection", "thread"), str(number)):
            wrong.append((way, number, found))

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

        async def task():
            for _ in range(3):
                await pause()
                # by then the request has ended: each call is for itself
                await sync_to_async(begins)(number)

        tasks.append(asyncio.create_task(task()))
        return HttpResponse("done")

    async def go():
        answers = await at_once(serve(locals_of[way]))
        await asyncio.gather(*tasks)
        return answers

    locals_of = {"plain": plain, "stream": stream, "synchronous": synchronous, "background": background}
    answers = asyncio.run(go())
    assert [answer.status for answer in answers] == [200] * NUMBER
    assert all(answer.body.endswith(b"done") for answer in answers)
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("state", STATES)
def test_no_session_is_another_sockets(directly, marks, monkeypatch, state):
    from django.db import connections
    from pergola_runtime import handler, threads

    threads.open_pool()
    monkeypatch.setattr(threads, "pool", threads.Pool(3))
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 10)
    session = Session(state)
    wrong = []

    def alone(number):
        if session.look()["session"] is not None:
            wrong.append((number, session.look()))
        session.alter(number)

    async def consumer(scope, receive, send):
        for _ in range(3):
            await sync_to_async(alone)(scope["number"])
            await pause()

    async def go():
        application = handler.consumers(consumer)
        sockets = ({"type": "websocket", "number": str(number)} for number in range(NUMBER))
        await asyncio.gather(*(application(scope, None, None) for scope in sockets))

    asyncio.run(go())
    assert not wrong, wrong[:5]


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
        end = time.monotonic() + 30
        while clients() - before:  # PostgreSQL's processes end a moment later
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s)", [[*clients()]]
        )
        return await at_once(client)

    from pergola_runtime.behind_nginx import behind_nginx

    client = serve(view)
    client.application = behind_nginx(client.application)
    answers = asyncio.run(go())
    assert {answer.status for answer in answers} == {200}
