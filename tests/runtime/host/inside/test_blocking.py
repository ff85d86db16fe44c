"""Requests that wait delay no other: measured beside Django's own handler, which has a thread for each."""

import asyncio
import contextlib
import hashlib
import multiprocessing
import re
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from asgi_client import Client
from asgiref.sync import sync_to_async
from waiting import PATIENCE, until

TRIES = 40
PAGES = ("page", "health")


@contextlib.contextmanager
def serving(*views, middleware=(), age=0):
    """Clients of these views, by the name of the handler. `age`: seconds for which connections are kept."""
    from django.core.handlers.asgi import ASGIHandler
    from django.db import connections
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime import threads
    from pergola_runtime.lean import LeanHandler

    threads.open_pool()
    urls = ModuleType("urls")
    urls.urlpatterns = [path(view.__name__, view) for view in views]
    with (
        mock.patch.object(threads, "pool", threads.Pool(3)),
        mock.patch.dict(connections.settings["default"], CONN_MAX_AGE=age),
        override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=urls, STATIC_URL="/static/"),
    ):
        yield {"django": Client(ASGIHandler()), "lean": Client(LeanHandler())}


def respond(text):
    from django.http import HttpResponse

    return HttpResponse(text)


def page(request):
    """With one query."""
    from django.contrib.auth.models import User

    return respond(str(User.objects.count()))


async def health(request):
    from django.contrib.auth.models import User

    return respond(str(await User.objects.acount()))


released = threading.Event()
entered = []


def sleeping(request):
    entered.append(1)
    assert released.wait(PATIENCE)
    return respond("woke up")


async def calling(request):
    await sync_to_async(sleeping)(request)
    return respond("woke up")


async def polling(request):
    entered.append(1)
    while not released.is_set():  # noqa: ASYNC110 - an event of threads
        await asyncio.sleep(0.05)
    return respond("woke up")


async def streaming(request):
    """One query, and then nothing until the end."""
    from django.contrib.auth.models import User
    from django.http import StreamingHttpResponse

    async def parts():
        yield str(await User.objects.acount()).encode()
        entered.append(1)
        while not released.is_set():  # noqa: ASYNC110 - an event of threads
            await asyncio.sleep(1)
        yield b" users"

    return StreamingHttpResponse(parts())


async def seconds_of(client, name):
    began = time.perf_counter()
    answer = await client.request("GET", f"/{name}")
    assert answer.status == 200, answer
    return time.perf_counter() - began


def medians(took):
    return {of: statistics.median(seconds) for of, seconds in took.items()}


@pytest.mark.parametrize(
    ("view", "number", "middleware"),
    [
        (sleeping, 20, ()),
        (sleeping, 200, ()),
        (calling, 20, ()),
        (calling, 200, ()),
        (polling, 60, ("whitenoise.middleware.WhiteNoiseMiddleware",)),  # which is synchronous
    ],
)
def test_a_page_waits_no_longer_than_under_djangos_handler(django, view, number, middleware):
    """So many requests of each handler wait at the same time, and both are asked for pages in turn.

    Neither keeps connections: each page opens one.
    """
    from pergola_runtime import threads

    async def measure(clients):
        released.clear()
        entered.clear()
        waiting = [
            asyncio.create_task(client.request("GET", f"/{view.__name__}"))
            for client in clients.values()
            for _ in range(number)
        ]
        took = {(name, handler): [] for name in PAGES for handler in clients}
        try:
            first = [await seconds_of(client, "page") for client in clients.values()]  # behind all of them
            await until(lambda: len(entered) == len(waiting), lambda: f"{len(entered)} wait")
            await seconds_of(clients["lean"], "page")  # takes the slot of a call that waits, if it needs one
            waited = threads.pool.waited
            for _ in range(TRIES):
                for name, handler in took:
                    took[name, handler].append(await seconds_of(clients[handler], name))
            # no page has waited for those that wait; one may have for a call that ended just then
            assert threads.pool.waited < waited + 1
            assert not any(task.done() for task in waiting)
        finally:
            released.set()
            answers = await asyncio.gather(*waiting)
        assert {answer.body for answer in answers} == {b"woke up"}
        print(view.__name__, number, first, medians(took))
        return medians(took)

    with serving(view, page, health, middleware=middleware) as clients:
        seconds = asyncio.run(measure(clients))
    for name in PAGES:
        assert seconds[name, "lean"] < 3 * seconds[name, "django"], seconds


def test_a_page_behind_a_burst_of_requests_that_wait_is_answered_soon(django):
    """Ten times as late as under Django's handler, before calls that wait let more begin; now twice."""

    async def first_page(client):
        released.clear()
        entered.clear()
        waiting = [asyncio.create_task(client.request("GET", "/sleeping")) for _ in range(200)]
        for _ in range(3):  # until they have asked for a thread
            await asyncio.sleep(0)
        seconds = await seconds_of(client, "page")
        await until(lambda: len(entered) == len(waiting), lambda: f"{len(entered)} wait")
        released.set()
        await asyncio.gather(*waiting)
        return seconds

    took = {"django": [], "lean": []}
    for _ in range(7):
        for handler, seconds in took.items():
            with serving(sleeping, page, age=10 if handler == "lean" else 0) as clients:
                seconds.append(asyncio.run(first_page(clients[handler])))
    print(took)
    seconds = medians(took)
    assert seconds["lean"] < 6 * seconds["django"], seconds


def hashing(request):
    """Computes outside of the interpreter's lock, as a login does."""
    hashlib.pbkdf2_hmac("sha256", b"wrong", b"salt", 400_000)
    return respond("computed")


def looping(request):
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    return respond("computed")


@pytest.mark.parametrize(
    ("view", "number", "sleepers"), [(hashing, 20, 0), (hashing, 20, 20), (looping, 4, 20)]
)
def test_calls_that_compute_delay_a_page_no_more_than_under_djangos_handler(django, view, number, sleepers):
    """So many clients ask for the view, again and again; others have requests that wait."""

    async def measure(client):
        released.clear()
        entered.clear()
        waiting = [asyncio.create_task(client.request("GET", "/sleeping")) for _ in range(sleepers)]
        await until(lambda: len(entered) == sleepers, lambda: f"{len(entered)} wait")

        computed = []

        async def again():
            while not released.is_set():
                answer = await client.request("GET", f"/{view.__name__}")
                assert answer.body == b"computed"
                computed.append(answer)

        computing = [asyncio.create_task(again()) for _ in range(number)]
        await until(lambda: len(computed) > number, lambda: f"{len(computed)} calls")
        try:
            return [await seconds_of(client, "page") for _ in range(4)]
        finally:
            released.set()
            await asyncio.gather(*waiting, *computing)

    took = {"django": [], "lean": []}
    for _ in range(3):  # in turn, as other processes may delay one of the two alone
        for handler, seconds in took.items():
            with serving(sleeping, view, page, age=10 if handler == "lean" else 0) as clients:
                seconds += asyncio.run(measure(clients[handler]))
    seconds = medians(took)
    print(view.__name__, number, sleepers, seconds)
    assert seconds["lean"] < 3 * seconds["django"], seconds


STREAMS = 1000


def used():
    """Threads, descriptors (a connection is one) and memory in MB of this process."""
    memory = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    return threading.active_count(), len([*Path("/proc/self/fd").iterdir()]), int(memory) // 1024


async def beside_streams(handler, client):
    """Seconds of pages without and with open streams, and what the streams use."""
    from pergola_runtime import threads

    async def ask():
        waited = threads.pool.waited
        took = {name: [await seconds_of(client, name) for _ in range(TRIES)] for name in PAGES}
        assert threads.pool.waited == waited
        return medians(took)

    alone, before = await ask(), used()
    streams = [asyncio.create_task(client.request("GET", "/streaming")) for _ in range(STREAMS)]
    try:
        await until(lambda: len(entered) == STREAMS, lambda: f"{len(entered)} of {STREAMS} stream")
        if handler == "lean":  # which closes the connections of streams that make no call
            await until(lambda: used()[1] < before[1] + 10, used)
        beside = await ask()
        assert not any(stream.done() for stream in streams)
        return alone, beside, [now - then for now, then in zip(used(), before, strict=True)]
    finally:
        released.set()
        answers = await asyncio.gather(*streams)
        assert all(answer.body.endswith(b" users") for answer in answers)


def beside_streams_in_this_process(handler):
    import django

    django.setup()
    with serving(streaming, page, health, age=10 if handler == "lean" else 0) as clients:
        return asyncio.run(beside_streams(handler, clients[handler]))


def test_open_streams_that_queried_once_delay_nothing(django):
    """In a process for each handler, or the second would use memory that the first has left."""
    measured = {}
    for handler in ("django", "lean"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            measured[handler] = process.submit(beside_streams_in_this_process, handler).result()
    print(f"{STREAMS} streams, seconds without and with them, threads, descriptors, MB: {measured}")
    (_, djangos, djangos_use), (alone, ours, our_use) = measured["django"], measured["lean"]
    for name in PAGES:
        assert ours[name] < 10 * max(alone[name], djangos[name])
    for mine, theirs in zip(our_use, djangos_use, strict=True):
        assert mine <= theirs * 1.1 + 10
