"""Who holds a thread, for how long, and how it comes back."""

import asyncio
import functools
import gc
import logging
import os
import random
import re
import socket as sockets
import threading
import time
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

import pytest
from asgi_client import Client
from asgiref.local import Local
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from waiting import PATIENCE, until

marker = ContextVar("marker", default=None)


@pytest.fixture
def pool(django, monkeypatch):
    """A pool of the test's own: three calls at once, twelve threads."""
    from pergola_runtime import threads

    threads.open_pool()
    monkeypatch.setattr(threads, "MOST", 12)
    made = threads.Pool(3)
    monkeypatch.setattr(threads, "pool", made)

    async def beyond_the_loop():
        yield

    made.ends, made.until_the_loop_ends = made.until_the_loop_ends, beyond_the_loop
    yield made
    asyncio.run(until(lambda: len(made.free) == made.size, "a thread was not given back"))
    assert not made.waiting
    for worker in made.free:
        worker.queue.put(None)
        worker.thread.join(10)


@pytest.fixture
def few(pool, monkeypatch):
    """No more threads than calls at once."""
    from pergola_runtime import threads

    monkeypatch.setattr(threads, "MOST", 3)


@pytest.fixture
def serve(pool):
    """Serves views by our handler: `serve(view)(n)` asks it n times at once and returns the answers."""
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime.lean import LeanHandler

    with ExitStack() as until_the_end:

        def serving(*views, middleware=()):
            urls = ModuleType("urls")
            urls.urlpatterns = [path(view.__name__, view) for view in views]
            until_the_end.enter_context(override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=urls))
            handler = LeanHandler()

            async def ask(times=1, name=views[0].__name__, **more):
                clients = [Client(handler).request("GET", f"/{name}", **more) for _ in range(times)]
                return await asyncio.gather(*clients)

            return ask

        yield serving


def text(answers):
    return [answer.body.decode() or answer.error for answer in answers]


def ident():
    return threading.get_ident()


def compute(seconds):
    """Of processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def backend():
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_current_xact_id_if_assigned()::text")
        return cursor.fetchone()


def hang_up(connection):
    """As PgBouncer does when it ends."""
    with sockets.socket(fileno=sockets.dup(connection.connection.fileno())) as copy:
        copy.shutdown(sockets.SHUT_RDWR)


def respond(value):
    from django.http import HttpResponse

    return HttpResponse(str(value))


@pytest.fixture
def closed(django, monkeypatch):
    """The caches of the default alias that were closed."""
    import leansite
    from django.core.cache.backends.locmem import LocMemCache
    from django.test import override_settings

    found = []

    class Closing(LocMemCache):
        def close(self):
            found.append(self)

    monkeypatch.setattr(leansite, "Closing", Closing, raising=False)
    with override_settings(CACHES={"default": {"BACKEND": "leansite.Closing"}}):
        yield found


def test_a_cache_that_has_something_to_close_is_closed_by_each_who_used_it(closed, serve, pool):
    from django.core.cache import caches

    async def used(request):
        used_here.append(caches["default"])
        return respond("used")

    async def unused(request):
        return respond("unused")

    async def go():
        return await ask(3), await ask(3, "unused")

    used_here = []
    ask = serve(used, unused)
    assert [text(answers) for answers in asyncio.run(go())] == [["used"] * 3, ["unused"] * 3]
    assert len(set(map(id, used_here))) == 3
    assert {*map(id, closed)} == {*map(id, used_here)}


def test_a_cache_that_nobody_asks_may_be_missing(serve, pool):
    from django.test import override_settings

    async def view(request):
        return respond("x")

    missing = {"BACKEND": "not.there.Cache"}
    with override_settings(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}, "other": missing}
    ):
        assert text(asyncio.run(serve(view)())) == ["x"]


def test_what_stands_in_the_place_of_a_session_is_left_alone(serve, pool):
    async def view(request):
        request.session = {}
        return respond("x")

    ask = serve(view, middleware=["django.contrib.sessions.middleware.SessionMiddleware"])
    assert text(asyncio.run(ask())) == ["x"]


@pytest.mark.parametrize(
    ("backend", "ways"),
    [("django.contrib.auth.backends.ModelBackend", 1), ("leansite.OwnBackend", 2), ("leansite.Refusing", 2)],
)
def test_who_is_logged_in_is_one_way_to_the_thread_unless_the_backend_has_its_own(
    serve, pool, monkeypatch, backend, ways
):
    import leansite
    from django.conf import settings
    from django.contrib import auth
    from django.contrib.auth.backends import ModelBackend
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from pergola_runtime import threads

    class OwnBackend(ModelBackend):
        async def aget_user(self, user_id):
            return await super().aget_user(user_id)

    class Refusing(ModelBackend):
        def get_user(self, user_id):
            """Not asked by `request.auser()`."""

    monkeypatch.setattr(leansite, "OwnBackend", OwnBackend, raising=False)
    monkeypatch.setattr(leansite, "Refusing", Refusing, raising=False)
    user, _ = User.objects.get_or_create(username="one way")
    session = SessionStore()
    session[auth.SESSION_KEY] = str(user.pk)
    session[auth.BACKEND_SESSION_KEY] = backend
    session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    counted, submit = [], threads.Calls.submit
    monkeypatch.setattr(
        threads.Calls, "submit", lambda calls, *given: counted.append(1) or submit(calls, *given)
    )

    async def view(request):
        user, again = await request.auser(), await request.auser()
        assert user is again
        return respond(user.get_username())

    monkeypatch.setattr(settings, "AUTHENTICATION_BACKENDS", [backend])
    ask = serve(view, middleware=leansite.DEFAULT_MIDDLEWARE)
    cookie = [(b"cookie", f"sessionid={session.session_key}".encode())]
    assert text(asyncio.run(ask(headers=cookie))) == ["one way"]
    assert len(counted) == ways
    counted.clear()
    assert text(asyncio.run(ask())) == [""]
    assert not counted


def test_a_request_without_synchronous_code_takes_no_thread(serve, pool):
    from leansite import DEFAULT_MIDDLEWARE

    async def view(request):
        return respond("x")

    ask = serve(view, middleware=DEFAULT_MIDDLEWARE)
    assert text(asyncio.run(ask(20))) == ["x"] * 20
    assert pool.size == pool.taken == 0


@pytest.mark.parametrize(("age", "connections"), [(3600, 1), (0, 20)])
def test_threads_and_connections_are_used_again(serve, pool, monkeypatch, age, connections):
    """A kept connection is announced once; one that is not kept in each request, as in Django."""
    from django.db import connection
    from django.db import connections as settings
    from django.db.backends.signals import connection_created

    monkeypatch.setitem(settings.settings["default"], "CONN_MAX_AGE", age)
    created, here = [], threading.local()

    def leave(number):
        found = getattr(here, "number", None)
        assert getattr(connection, "number", None) == found  # Django's object, not PostgreSQL's session
        here.number = connection.number = number
        backend()
        return found, number

    async def view(request):
        begun.append(1)
        return respond(await sync_to_async(leave)(len(begun)))

    def receive(**_):
        created.append(1)

    begun = []
    ask = serve(view)

    async def go():
        for number in range(1, 21):
            assert text(await ask(1)) == [str((number - 1 or None, number))]
            await until(lambda: len(pool.free) == pool.size, "the thread is given back")

    connection_created.connect(receive)
    try:
        asyncio.run(go())
    finally:
        connection_created.disconnect(receive)
    assert pool.size == 1
    assert len(created) == connections


def test_more_requests_than_threads_wait_in_turn_while_the_event_loop_runs_on(serve, pool, few):
    order, ticks = [], []

    def work(n):
        order.append(n)
        compute(0.05)

    async def view(request):
        number = len(started)
        started.append(number)
        await sync_to_async(work)(number)
        return respond(number)

    started = []
    ask = serve(view)

    async def go():
        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        await ask(12)
        ticking.cancel()

    asyncio.run(go())
    assert pool.size == 3
    # threads that are let in at once begin in any order
    assert all(abs(place - n) < 3 for place, n in enumerate(order)), order
    assert len(ticks) > 12
    assert pool.waited > 0


def test_few_calls_run_at_once_until_a_tenth_of_a_second_or_a_look_says_that_they_wait(
    serve, pool, monkeypatch
):
    """Here nothing looks, so that it does not depend on how busy the machine is."""
    from pergola_runtime import threads

    monkeypatch.setattr(threads, "HANDOFF", PATIENCE)
    monkeypatch.setattr(threads, "GRACE", PATIENCE)
    counting, now, most = threading.Lock(), [0], [0]

    def work():
        with counting:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with counting:
            now[0] -= 1

    async def view(request):
        await sync_to_async(work)()
        return respond("done")

    assert text(asyncio.run(serve(view)(12))) == ["done"] * 12
    assert most == [3]


def test_a_page_passes_calls_that_compute_for_long(serve, pool):
    """They have lost their slots when it comes, so that it is answered before any of them has ended."""

    def long(request):
        compute(1)
        return respond("long")

    def page(request):
        return respond("page")

    ask = serve(long, page)

    async def go():
        computing = asyncio.gather(*(ask(1) for _ in range(6)))
        await until(lambda: pool.waiting, "more of them than have a slot")
        assert text(await ask(1, "page")) == ["page"]
        assert not computing.done()
        assert [len(one) for one in await computing] == [1] * 6
        return pool.size

    assert asyncio.run(go()) == 7


def test_requests_that_hold_threads_and_call_again_and_again_let_others_in(serve, pool, monkeypatch):
    """As streams do that poll: each keeps its slot no longer than its call when others wait."""
    from django.http import StreamingHttpResponse
    from pergola_runtime import threads

    number, calls = 200, 15
    monkeypatch.setattr(threads, "MOST", 2 * number)
    ended = []

    async def stream(request):
        async def parts():
            for _ in range(calls):
                yield str(await sync_to_async(time.sleep)(0.002))
                await asyncio.sleep(0.2)
            ended.append(1)

        return StreamingHttpResponse(parts())

    def page(request):
        return respond("page")

    ask = serve(stream, page)

    async def go():
        streams = asyncio.create_task(ask(number))
        await until(lambda: pool.taken == number, "all streams have begun")
        assert text([answer for _ in range(10) for answer in await ask(1, "page")]) == ["page"] * 10
        answered_before = number - len(ended)
        await streams
        return answered_before

    assert asyncio.run(go()) == number


def test_free_threads_end_when_they_have_not_been_used_for_long(serve, pool, monkeypatch):
    from pergola_runtime import threads

    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.2)
    at_once = threading.Barrier(12)

    def view(request):
        at_once.wait(PATIENCE)
        return respond("done")

    ask = serve(view)

    async def go():
        assert text(await ask(12)) == ["done"] * 12
        assert pool.size == 12
        await until(lambda: pool.size == pool.limit, "those beyond the limit end")

    asyncio.run(go())


def test_a_request_takes_a_thread_in_a_process_whose_websockets_hold_many(serve, pool, monkeypatch):
    from pergola_runtime import threads
    from pergola_runtime.lean import consumer_context

    monkeypatch.setattr(threads, "MOST", 3)

    def view(request):
        return respond("done")

    ask = serve(view)

    async def consumer(held, ending):
        async with consumer_context():
            await sync_to_async(ident)()
            held.append(1)
            await ending.wait()

    async def go():
        held, ending = [], asyncio.Event()
        consumers = [asyncio.create_task(consumer(held, ending)) for _ in range(5)]
        await until(lambda: len(held) == 5, "more of them than MOST")
        assert text(await ask(2)) == ["done"] * 2
        ending.set()
        await asyncio.gather(*consumers)

    asyncio.run(go())


def test_a_thread_that_a_view_starts_is_no_daemon(serve, pool):
    """As under Django's handler: a server waits for it at its end."""

    def view(request):
        return respond(threading.Thread().daemon)

    assert text(asyncio.run(serve(view)())) == ["False"]


@pytest.fixture
def directly(django, monkeypatch):
    """Past PgBouncer, which keeps nothing between two transactions."""
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "PORT", "5432")


@pytest.fixture
def resting(serve):
    """Requests that mark their thread and their connection, wait for long, and look for their marks."""
    from django.db import connection

    async def view(request):
        number = str(len(begun))
        begun.append(number)
        before = await sync_to_async(mark)(number)
        held.append(number)
        await release.wait()
        return respond(before == await sync_to_async(marks)() == [number] * 3)

    def mark(number):
        here.number = connection.number = number
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lean.request', %s, false)", [number])
        return marks()

    def marks():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lean.request', true)")
            return [here.number, connection.number, cursor.fetchone()[0]]

    async def go(number, at_rest):
        nonlocal release
        release = asyncio.Event()
        asked = asyncio.create_task(ask(number))
        await until(lambda: len(held) == at_rest, "not so many wait with a thread")
        await asyncio.sleep(0.1)
        assert len(held) == at_rest
        release.set()
        return text(await asked)

    begun, held, here, release = [], [], threading.local(), None
    ask = serve(view)
    return go


def test_a_thread_and_its_connection_are_one_requests_alone_while_it_waits(resting, pool, directly):
    """Who a thread's user or tenant is, and what SET said, is not another request's."""
    assert asyncio.run(resting(10, at_rest=10)) == ["True"] * 10
    assert pool.size == 10


READS = {
    "aggregate": lambda users: users.aaggregate(number=count("pk")),
    "contains": lambda users: users.acontains(users.model(pk=1)),
    "count": lambda users: users.acount(),
    "earliest": lambda users: users.aearliest("pk"),
    "exists": lambda users: users.aexists(),
    "first": lambda users: users.afirst(),
    "get": lambda users: users.aget(username="read"),
    "in_bulk": lambda users: users.ain_bulk(),
    "iterate": lambda users: anext(aiter(users.all())),
    "last": lambda users: users.alast(),
    "latest": lambda users: users.alatest("pk"),
}


def count(name):
    from django.db.models import Count

    return Count(name)


def test_a_request_has_one_thread_from_its_first_read_to_its_end(serve, pool, django):
    from django.contrib.auth.models import User

    User.objects.get_or_create(username="read")

    async def view(request):
        found = set()
        for read in READS.values():
            await read(User.objects)
            found.add(SyncToAsync.thread_sensitive_context.get()._executor.worker.thread.ident)
        return respond(found == {await sync_to_async(ident)()})

    assert text(asyncio.run(serve(view)(3))) == ["True"] * 3


def test_threads_have_a_bound_beyond_which_requests_wait(resting, pool, directly):
    assert asyncio.run(resting(20, at_rest=12)) == ["True"] * 20
    assert pool.size == 12
    assert pool.waited


def test_a_request_goes_on_while_others_have_all_turns(serve, pool):
    """It may hold what they wait for."""

    def wait():
        assert go_on.wait(PATIENCE)

    async def first(request):
        await sync_to_async(ident)()
        holding.append(1)
        await release.wait()
        await sync_to_async(go_on.set)()
        return respond("went on")

    async def others(request):
        await sync_to_async(wait)()
        return respond("waited")

    holding, go_on = [], threading.Event()
    ask = serve(first, others)

    async def go():
        nonlocal release
        release = asyncio.Event()
        one = asyncio.create_task(ask())
        await until(lambda: holding, "it rests")
        more = asyncio.create_task(ask(5, name="others"))
        await until(lambda: pool.size - len(pool.free) == 6, "the others wait in threads of their own")
        release.set()
        return text(await one) + text(await more)

    release = None
    assert asyncio.run(go()) == ["went on"] + ["waited"] * 5


@pytest.fixture
def let_in(serve, pool):
    """`let_in(view, number)`: what so many requests answer that wait within the view, each told by
    `holding`, for a further one, which makes a call of its own and sets `release`."""

    async def releasing(request):
        await sync_to_async(ident)()
        asked.release.set()
        return respond("released")

    async def go(ask, number):
        waiting = asyncio.create_task(ask(number))
        await until(lambda: len(asked.holding) == number, "all have a thread")
        await until(lambda: not pool.running, "none is at work")
        assert text(await ask(1, "releasing")) == ["released"]
        return text(await waiting)

    def asked(view, number, **options):
        return asyncio.run(go(serve(view, releasing, **options), number))

    asked.holding, asked.release = [], asyncio.Event()
    return asked


def test_a_request_whose_thread_waits_for_the_event_loop_lets_others_in(let_in):
    """As each asynchronous view behind a synchronous middleware, which holds its thread all the while."""

    async def view(request):
        let_in.holding.append(await sync_to_async(ident)())
        await let_in.release.wait()
        return respond(let_in.holding.count(await sync_to_async(ident)()))

    assert let_in(view, 11, middleware=["leansite.synchronous"]) == ["1"] * 11


def test_a_call_behind_a_thread_that_waits_for_the_event_loop_lets_others_in(let_in, pool):
    async def view(request):
        first = asyncio.create_task(sync_to_async(async_to_sync(waits))())
        await until(lambda: pool.size and not pool.running, "its thread waits")
        second = asyncio.create_task(sync_to_async(ident)())
        await asyncio.sleep(0.05)
        let_in.holding.append(1)
        return respond((await first, await second == await sync_to_async(ident)()))

    async def waits():
        await let_in.release.wait()
        return "waited"

    assert let_in(view, 3) == ["('waited', True)"] * 3


def test_calls_from_another_event_loop_of_the_request_s_let_others_in(let_in):
    async def call():
        return await sync_to_async(ident)()

    async def view(request):
        let_in.holding.append(await sync_to_async(lambda: asyncio.run(call()), thread_sensitive=False)())
        await let_in.release.wait()
        return respond("waited")

    assert let_in(view, 3) == ["waited"] * 3


def test_clients_that_go_while_a_thread_waits_for_the_event_loop_leave_no_error(serve, pool):
    async def view(request):
        await asyncio.sleep(0.005)
        await sync_to_async(ident)()
        await asyncio.sleep(0.005)
        return respond(request.body.decode())

    chance = random.Random(5)
    ask = serve(view, middleware=["leansite.synchronous"])

    async def go():
        for _ in range(20):
            going = (ask(leaves_after=chance.random() / 30) for _ in range(30))
            answers = [answer for (answer,) in await asyncio.gather(*going)]
            assert {answer.error for answer in answers} == {""}
            assert {answer.status for answer in answers} <= {0, 200}

    asyncio.run(go())


def test_what_synchronous_code_asks_of_the_application_is_done_in_its_thread_and_transaction(serve, pool):
    """As a project's tests do, within the transaction that Django's TestCase undoes."""
    from django.db import connection, transaction

    def inner(request):
        return respond((ident(), connection.in_atomic_block))

    def outer(request):
        with transaction.atomic():
            (answer,) = async_to_sync(ask)(1, "inner")
        return respond(answer.body.decode() == str((ident(), True)))

    ask = serve(outer, inner)
    assert text(asyncio.run(asyncio.wait_for(ask(6), PATIENCE))) == ["True"] * 6


def test_what_asynchronous_code_asks_of_the_application_has_a_thread_of_its_own(serve, pool):
    async def inner(request):
        return respond(await sync_to_async(ident)())

    async def outer(request):
        before = await sync_to_async(ident)()
        (answer,) = await ask(1, "inner")
        after = await sync_to_async(ident)()
        return respond((before == after, answer.body.decode() == str(before)))

    ask = serve(outer, inner)
    assert text(asyncio.run(ask(6))) == ["(True, False)"] * 6


def test_synchronous_code_that_serves_no_request_asks_the_application_as_djangos(serve, pool):
    """As a command or a Celery task does, whose thread is not one of ours."""
    from django.db import connection

    def view(request):
        return respond(backend()[0])

    def breaks(request):
        connection.ensure_connection()
        hang_up(connection)
        return view(request)

    ask = async_to_sync(serve(view, breaks))
    try:
        answers = [answer for name in ("view", "breaks", "view", "view") for answer in ask(1, name)]
        assert [answer.status for answer in answers] == [200, 500, 200, 200]
        assert pool.size == 0
    finally:
        connection.close()


@pytest.fixture
def starting(monkeypatch):
    """Whether the pool's next threads cannot be started, as at the unit's TasksMax; the last is the first."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("pergola-") and failures and failures.pop():
            raise RuntimeError("can't start new thread")
        start(thread)

    failures = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    return failures


def test_more_calls_are_allowed_only_while_calls_that_wait_come_in_a_burst(serve, pool, monkeypatch):
    from pergola_runtime import threads

    monkeypatch.setattr(threads, "MOST", 60)
    release, begun = threading.Event(), []

    def wait():
        begun.append(pool.allowed)
        release.wait(PATIENCE)

    async def view(request):
        await sync_to_async(wait)()
        return respond("waited")

    async def go():
        burst = asyncio.create_task(serve(view)(60))
        await until(lambda: len(begun) == 60, "all of them wait at the same time")
        assert max(begun) > pool.limit
        await until(lambda: pool.allowed == pool.limit, "no more are allowed")
        release.set()
        return text(await burst)

    assert asyncio.run(go()) == ["waited"] * 60


def test_a_thread_that_cannot_be_started_costs_one_answer_and_no_more(serve, pool, starting):
    async def view(request):
        return respond(await sync_to_async(str)("served"))

    starting += [True] * 12
    ask = serve(view)

    async def go():
        while starting:
            await ask(1)
        return text(await ask(5))

    assert asyncio.run(go()) == ["served"] * 5
    assert not pool.running


def test_who_waits_while_no_thread_can_be_started_has_the_next_that_is_given_back(serve, pool, starting):
    async def view(request):
        holding.append(await sync_to_async(ident)())
        await release.wait()
        return respond("served")

    holding, release = [], None
    starting += [True] * 50 + [False] * 3
    ask = serve(view)

    async def go():
        nonlocal release
        release = asyncio.Event()
        asked = asyncio.create_task(ask(9))
        await until(lambda: len(holding) == 3, "three have a thread")
        await until(lambda: not pool.running, "they wait for something else")
        assert len(pool.waiting) == 6
        release.set()
        return text(await asyncio.wait_for(asked, PATIENCE))

    assert asyncio.run(go()) == ["served"] * 9
    assert pool.size == 3


def test_a_connection_that_breaks_off_behind_its_login_is_not_used_again(serve, pool, server, monkeypatch):
    """As PgBouncer's does whose PostgreSQL is away. Nobody has heard of it: it was not yet made."""
    from django.db import connections, transaction

    kind = type(connections["default"])
    real = kind.init_connection_state

    @functools.wraps(real)  # as agents do
    def breaks(one):
        real(one)
        broken.append(one.connection.info.backend_pid)
        if len(broken) == 1:
            transaction.set_autocommit(False)
            raise ValueError("broken off")

    async def view(request):
        return respond(await sync_to_async(transaction.get_autocommit)() and await sync_to_async(backend)())

    broken = []
    monkeypatch.setattr(kind, "init_connection_state", breaks)
    ask = serve(view)

    async def go():
        return [answer.status for _ in range(3) for answer in await ask(1)]

    assert asyncio.run(go()) == [500, 200, 200]
    assert len(broken) == 2


@pytest.mark.parametrize("driver", [{"info": print}, {"info": {}}, {}])
def test_a_driver_that_does_not_tell_of_transactions_is_taken_at_djangos_word(django, driver):
    """`info` is a connection's status in psycopg2, and a method in mysqlclient."""
    from types import SimpleNamespace

    from pergola_runtime.database import transaction_is_open

    settings = {"AUTOCOMMIT": True}
    one = SimpleNamespace(connection=SimpleNamespace(**driver), in_atomic_block=False, settings_dict=settings)
    assert [transaction_is_open(SimpleNamespace(autocommit=how, **vars(one))) for how in (True, False)] == [
        False,
        True,
    ]


def test_a_connection_is_checked_once_a_request_where_the_project_wants_it(serve, pool, monkeypatch):
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_HEALTH_CHECKS", True)
    checked, kind = [], type(connections["default"])
    check = kind.is_usable
    monkeypatch.setattr(kind, "is_usable", lambda one: checked.append(1) or check(one))

    async def view(request):
        await sync_to_async(backend)()
        return respond((await sync_to_async(backend)())[0])

    ask = serve(view)

    async def go():
        for _ in range(5):
            assert text(await ask())[0].isdecimal()

    asyncio.run(go())
    assert len(checked) == 4


def test_the_body_is_there_for_what_still_reads_it(serve, pool):
    def read(request):
        assert answered.wait(PATIENCE)
        found.append(request.read())

    async def view(request):
        tasks.append(asyncio.create_task(sync_to_async(read)(request)))
        await until(lambda: pool.running, "it reads")
        return respond("soon")

    found, tasks, answered = [], [], threading.Event()
    ask = serve(view)

    async def go():
        asked = asyncio.create_task(ask(body=b"abc"))
        await until(lambda: tasks and pool.running, "it reads")
        await asyncio.sleep(0.1)
        answered.set()
        assert text(await asked) == ["soon"]
        await asyncio.gather(*tasks)

    asyncio.run(go())
    assert found == [b"abc"]


def test_a_transaction_left_open_between_two_calls_is_its_requests_alone(serve, pool):
    from django.db import transaction

    async def holder(request):
        await sync_to_async(transaction.set_autocommit)(False)
        _, mine = await sync_to_async(take_xid)()
        holding.append(1)
        await release.wait()
        return respond((await sync_to_async(backend)())[1] == mine)

    def take_xid():
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_current_xact_id()::text")
            return cursor.fetchone()

    async def other(request):
        return respond((await sync_to_async(backend)())[1])

    holding = []
    ask = serve(holder, other)

    async def go():
        nonlocal release
        release = asyncio.Event()
        holders = asyncio.create_task(ask(2))
        await until(lambda: len(holding) == 2, "two transactions are open")
        others = text(await ask(10, name="other"))
        release.set()
        return text(await holders), others

    release = None
    holders, others = asyncio.run(go())
    assert holders == ["True"] * 2
    assert others == ["None"] * 10


@pytest.mark.parametrize("way", ["autocommit", "atomic", "sql"])
def test_an_open_transaction_ends_with_its_request(serve, pool, server, way):
    from django.db import connection, transaction

    def leave_open():
        if way == "autocommit":
            transaction.set_autocommit(False)
        elif way == "atomic":
            transaction.atomic().__enter__()
        with connection.cursor() as cursor:
            if way == "sql":
                cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()::text")
            return cursor.fetchone()[0]

    async def view(request):
        return respond(await sync_to_async(leave_open)())

    async def after(request):
        return respond((await sync_to_async(backend)())[1])

    ask = serve(view, after)

    async def go():
        first = text(await ask(1))
        await until(lambda: len(pool.free) == pool.size, "the thread is given back")
        return first, text(await ask(3, name="after"))

    (xid,), others = asyncio.run(go())
    assert xid.isdecimal()
    assert others == ["None"] * 3
    with server.cursor() as cursor:
        cursor.execute("SELECT pg_xact_status(%s::text::xid8)", [xid])
        assert cursor.fetchone()[0] == "aborted"


def test_a_client_that_goes_leaves_the_thread_until_its_call_has_ended(serve, pool):
    def work():
        began.set()
        assert go_on.wait(PATIENCE)

    began, go_on, cancelled = threading.Event(), threading.Event(), threading.Event()

    async def view(request):
        try:
            await sync_to_async(work)()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return respond("never seen")

    ask = serve(view)

    async def go():
        left = asyncio.create_task(ask(1, leaves_when=began.is_set))
        await until(cancelled.is_set, "the client has gone")
        assert len(pool.free) == pool.size - 1 == 0
        go_on.set()
        await until(lambda: len(pool.free) == pool.size, "the thread is given back")
        return await left

    (answer,) = asyncio.run(go())
    assert answer.status == 0


@pytest.mark.parametrize(("watched_after", "status"), [(3600, 200), (0, 0)])
def test_a_client_that_goes_early_is_answered_nevertheless(serve, pool, monkeypatch, watched_after, status):
    """With uvicorn a client is watched from LISTEN_AFTER seconds on."""
    from pergola_runtime import lean

    monkeypatch.setattr(lean, "LISTEN_AFTER", watched_after)
    monkeypatch.setattr(lean, "is_uvicorns", lambda receive: True)

    async def view(request):
        for _ in range(1000 if status else 10**9):  # turns of the event loop
            await asyncio.sleep(0)
        return respond("answered")

    (answer,) = asyncio.run(asyncio.wait_for(serve(view)(leaves_after=0), PATIENCE))
    assert answer.status == status


def test_a_client_that_goes_while_it_waits_for_a_thread_takes_none(serve, pool, few):
    def work():
        ran.append(1)
        assert go_on.wait(PATIENCE)

    ran, cancelled, go_on = [], [], threading.Event()

    async def view(request):
        try:
            await sync_to_async(work)()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise
        return respond("done")

    ask = serve(view)

    async def go():
        busy = asyncio.create_task(ask(3))
        await until(lambda: len(ran) == 3, "all threads are busy")
        left = asyncio.create_task(ask(4, leaves_after=0.05))
        await until(lambda: len(cancelled) == 4, "four clients have gone")
        go_on.set()
        await left
        return text(await busy)

    assert asyncio.run(go()) == ["done"] * 3
    assert len(ran) == 3


def test_nested_calls_and_contexts_do_not_lock_each_other_out(serve, pool):
    def inner():
        return ident()

    def outer():
        async def both():
            async with ThreadSensitiveContext():
                return await asyncio.gather(*(sync_to_async(inner)() for _ in range(3)))

        return {ident(), *async_to_sync(both)()}

    async def view(request):
        async def one():
            async with ThreadSensitiveContext():
                return await sync_to_async(outer)()

        found = set().union(*await asyncio.gather(*(one() for _ in range(4))))
        free = await sync_to_async(ident, thread_sensitive=False)()
        return respond((len(found), free in found))

    ask = serve(view)
    assert text(asyncio.run(asyncio.wait_for(ask(30), PATIENCE))) == ["(1, False)"] * 30


@pytest.mark.parametrize("session", ["as it was", "altered"])
def test_a_stream_keeps_its_thread_and_a_connection_only_if_its_session_was_altered(
    serve, pool, directly, monkeypatch, session
):
    from django.db import connection
    from django.http import StreamingHttpResponse
    from pergola_runtime import threads

    class Recorded(threads.Worker):
        def __init__(self, pool):
            workers.append(self)
            super().__init__(pool)

    monkeypatch.setattr(threads, "Worker", Recorded)
    monkeypatch.setattr(threads, "REST", 0.05)
    here = threading.local()

    def alter(number):
        here.number = connection.number = number
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lean.stream', %s, false)", [number])

    def marks():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lean.stream', true)")
            return here.number, connection.number, cursor.fetchone()[0]

    async def parts(number):
        waiting.append(number)
        await release.wait()
        if session == "altered":
            yield str(await sync_to_async(marks)() == (number, number, number))
        else:
            yield str(bool(await sync_to_async(backend)()))

    async def view(request):
        number = str(len(begun))
        begun.append(number)
        await (sync_to_async(alter)(number) if session == "altered" else sync_to_async(backend)())
        return StreamingHttpResponse(parts(number))

    begun, waiting, workers = [], [], []
    ask = serve(view)

    def held():
        return sum(len(worker.connections) for worker in workers)

    async def go():
        nonlocal release
        release = asyncio.Event()
        streams = asyncio.create_task(ask(8))
        await until(lambda: len(waiting) == 8, "the streams wait")
        assert pool.size - len(pool.free) == 8
        await until(lambda: held() == (8 if session == "altered" else 0), "their connections are as wanted")
        release.set()
        return await streams

    release = None
    assert text(asyncio.run(go())) == ["True"] * 8


def test_a_task_that_outlives_its_request_goes_on_calling(serve, pool):
    async def later():
        await release.wait()
        results.append(await sync_to_async(backend)())

    results, tasks = [], []

    async def view(request):
        tasks.append(asyncio.create_task(later()))
        return respond("x")

    ask = serve(view)

    async def go():
        nonlocal release
        release = asyncio.Event()
        await ask(5)
        release.set()
        await asyncio.gather(*tasks)
        tasks.clear()
        await until(lambda: len(pool.free) == pool.size, "a thread was not given back")

    release = None
    asyncio.run(go())
    assert len(results) == 5


def test_no_context_variable_is_left_behind(serve, pool):
    def work():
        seen.append(marker.get())
        marker.set("mine")
        return marker.get()

    seen = []

    async def view(request):
        inside = await sync_to_async(work)()
        return respond((inside, marker.get()))

    ask = serve(view)

    async def go():
        return [text(await ask(1))[0] for _ in range(10)], marker.get()

    answers, after = asyncio.run(go())
    assert answers == ["('mine', 'mine')"] * 10
    assert seen == [None] * 10
    assert after is None


def test_a_connection_that_the_server_closed_is_not_used(serve, pool, server):
    async def view(request):
        return respond((await sync_to_async(backend)())[0])

    ask = serve(view)

    async def go():
        first = text(await ask(1))[0]
        (worker,) = pool.free
        for one in worker.connections:
            hang_up(one)
        return first, text(await ask(1))[0]

    first, second = asyncio.run(go())
    assert first.isdecimal()
    assert second.isdecimal()


def test_context_variables_of_a_view_are_seen_behind_it(serve, pool):
    """On every Django as on 6.1: the view runs in the server's task."""
    from django.core import signals

    seen = []

    async def view(request):
        marker.set("of the view")
        return respond("done")

    def receive(**_):
        seen.append(marker.get())

    ask = serve(view)
    signals.request_finished.connect(receive)
    try:
        assert text(asyncio.run(ask())) == ["done"]
    finally:
        signals.request_finished.disconnect(receive)
    assert seen == ["of the view"]


@pytest.mark.parametrize("how", ["not noticed", "noticed"])
def test_a_connection_that_breaks_between_two_calls_is_opened_again(serve, pool, how):
    """A stream or a WebSocket that goes on after the error would have it to its end."""
    from django.db import connection

    def breaks():
        backend()
        driver = connection.connection
        if how == "noticed":
            driver.pgconn.finish()
        else:
            hang_up(connection)
        return driver

    def goes_on():
        backend()
        return connection.connection

    async def view(request):
        before = await sync_to_async(breaks)()
        await asyncio.sleep(0.05)
        return respond(await sync_to_async(goes_on)() is not before)

    assert text(asyncio.run(serve(view)())) == ["True"]


def test_wrappers_that_a_request_opens_and_closes_are_forgotten(serve, pool):
    from django.db import connection

    def opens():
        copy = connection.copy()
        copy.ensure_connection()
        copy.close()
        return len(pool.busy_worker().connections)

    async def view(request):
        return respond([await sync_to_async(opens)() for _ in range(5)][-1])

    from pergola_runtime import threads

    pool.busy_worker = lambda: threads.own.request.worker
    assert text(asyncio.run(serve(view)())) == ["1"]


def test_an_idle_connection_is_closed_when_it_is_too_old(serve, pool, monkeypatch):
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 1)

    async def view(request):
        return respond((await sync_to_async(backend)())[0])

    ask = serve(view)

    async def go():
        await ask(1)
        (worker,) = pool.free
        assert worker.connections
        await until(lambda: not worker.connections, "the connection is closed")

    asyncio.run(go())


def test_threads_end_with_the_event_loop(serve, pool):
    async def view(request):
        return respond((await sync_to_async(backend)())[0])

    pool.until_the_loop_ends = pool.ends
    ask = serve(view)
    before = threading.active_count()
    asyncio.run(ask(3))
    assert pool.size == 0
    assert threading.active_count() == before
    assert text(asyncio.run(ask(1)))[0].isdecimal()  # another loop begins anew


def test_with_an_age_of_0_every_request_has_a_connection_of_its_own(serve, pool, monkeypatch):
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)

    async def view(request):
        return respond((await sync_to_async(backend)())[0])

    ask = serve(view)

    async def go():
        await ask(5)
        await until(lambda: len(pool.free) == pool.size, "the threads are given back")
        await until(lambda: not any(worker.connections for worker in pool.free), "all are closed")

    asyncio.run(go())


@pytest.fixture
def mix(serve, pool):
    """Sends a thousand requests at once, of every kind; returns what was wrong.

    Each marks its transaction, and looks for its own mark in every later query of it.
    """
    from django.db import connection, transaction
    from django.http import StreamingHttpResponse

    def marked(own, leave_open):
        if leave_open:
            transaction.set_autocommit(False)
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lean.own', %s, true)", [own])
                return own
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lean.own', true)")
            assert not cursor.fetchone()[0], "somebody else's transaction"
            cursor.execute(
                "SELECT set_config('lean.own', %s, true), pg_sleep(%s)", [own, random.random() / 500]
            )
            cursor.execute("SELECT current_setting('lean.own', true)")
            return cursor.fetchone()[0]

    def look():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lean.own', true)")
            return cursor.fetchone()[0]

    def nested(own):
        return async_to_sync(sync_to_async(marked))(own, False)

    async def view(request):
        own = str(random.random())
        what = random.randrange(6)
        if what == 0:
            assert await sync_to_async(marked)(own, True) == own
            await asyncio.sleep(random.random() / 100)
            assert await sync_to_async(look)() == own, "not in the transaction that it left open"
        elif what == 1:
            assert await sync_to_async(nested)(own) == own
        elif what == 2:
            await sync_to_async(marked)(own, False)
            raise ValueError("on purpose")
        elif what == 3:

            async def parts():
                for _ in range(3):
                    assert await sync_to_async(marked)(own, False) == own
                    await asyncio.sleep(random.random() / 100)
                    yield "x"

            return StreamingHttpResponse(parts())
        elif what == 4:
            await asyncio.gather(*(sync_to_async(marked)(own, False) for _ in range(3)))
        else:
            await sync_to_async(marked)(own, False)
            await asyncio.sleep(random.random() / 50)
        return respond("fine")

    ask = serve(view)
    bad = []

    async def send(number):
        async def one():
            leaves = random.choice([None, None, random.random() / 20])
            bad.extend(
                answer
                for answer in await ask(1, leaves_after=leaves)
                if answer.status not in (200, 500, 0) or "Assertion" in answer.error
            )

        await asyncio.gather(*(one() for _ in range(number)))
        await until(lambda: len(pool.free) == pool.size, "all threads are given back")

    def seen(record):
        """Nobody else is told: pytest keeps each record, and with it a traceback and its request."""
        if record.exc_info and not isinstance(record.exc_info[1], ValueError):
            bad.append(repr(record.exc_info[1]))
        return False

    logger = logging.getLogger("django.request")
    logger.addFilter(seen)
    yield send, bad
    logger.removeFilter(seen)


def open_transactions(server):
    with server.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' OR wait_event = 'Lock'"
        )
        return cursor.fetchone()[0]


@pytest.mark.parametrize("held", [1, 2])
def test_a_mix_of_everything_leaves_nothing_and_crosses_nothing(mix, pool, server, monkeypatch, held):
    from pergola_runtime import threads

    monkeypatch.setattr(threads, "MOST", 3 * held)
    send, bad = mix
    asyncio.run(send(1000))
    assert not bad, bad[:5]
    assert 0 < pool.size <= 3 * held  # the thread of a client that went has ended
    assert open_transactions(server) == 0


def test_memory_threads_and_connections_stay_flat(mix, pool, server, few):
    """Eight rounds, or as many as ten minutes hold with FULL=1."""
    send, bad = mix
    seconds = 600 if os.environ.get("FULL") else 0

    def look():
        gc.collect()
        status = Path("/proc/self/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024
        # the event loop's own threads, on which Django answers errors, come one by one up to their bound
        threads = [one for one in threading.enumerate() if not one.name.startswith("asyncio_")]
        return resident, len(threads), sum(len(worker.connections) for worker in pool.free)

    async def go():
        end = time.monotonic() + seconds
        while len(looks) < 8 or time.monotonic() < end:
            await send(200)
            looks.append(look())

    looks = []
    _, threads_before, _ = look()
    asyncio.run(go())
    assert not bad, bad[:5]
    early, late = looks[len(looks) // 4], looks[-1]
    assert late[0] <= early[0] + 10, looks
    # the thread of a client that went has ended
    assert {threads - threads_before for _, threads, _ in looks} <= {1, 2, 3}
    assert {connections for *_, connections in looks} == {0}  # each request altered its session
    assert open_transactions(server) == 0


def by_asgiref(queries, **what):
    return sync_to_async(queries.get)(**what)


@pytest.mark.parametrize("get", [lambda queries, **what: queries.aget(**what), by_asgiref])
def test_a_read_is_called_as_asgiref_calls(serve, pool, get):
    """In its caller's context, which keeps what it leaves there, and with a way back to the event loop."""
    from django.contrib.auth.models import User
    from django.db.models.signals import post_init

    async def loop():
        return asyncio.get_running_loop()

    def loaded(sender, instance, **kwargs):
        seen.append((marker.get(), local.value, threading.get_ident(), async_to_sync(loop)()))
        marker.set("left")
        local.value = "left"

    async def view(request):
        marker.set("called")
        local.value = "called"
        await get(User.objects, username="read")
        with pytest.raises(User.DoesNotExist):
            await get(User.objects, username="nobody")
        seen.append((marker.get(), local.value, threading.get_ident(), asyncio.get_running_loop()))
        return respond("read")

    local, seen = Local(), []
    User.objects.get_or_create(username="read")
    post_init.connect(loaded, sender=User)
    try:
        assert text(asyncio.run(serve(view)())) == ["read"]
    finally:
        post_init.disconnect(loaded, sender=User)
    read, after = seen
    assert read[:2] == ("called", "called")
    assert after[:2] == ("left", "left")
    assert read[2] != after[2]
    assert read[3] is after[3]


def test_a_read_outside_a_request_has_the_thread_that_asgiref_gives_it(serve, pool):
    from django.contrib.auth.models import User
    from django.db import connections

    async def read():
        async with ThreadSensitiveContext():
            found = await User.objects.filter(username="nobody").acount()
            await sync_to_async(connections.close_all)()
            return found

    assert asyncio.run(read()) == 0
    assert pool.taken == 0
