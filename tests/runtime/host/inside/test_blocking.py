"""Requests that wait delay no other: measured beside Django's own handler, which has a thread for each."""

import asyncio
import re
import statistics
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
from asgi_client import Client
from asgiref.sync import sync_to_async

TRIES = 40


@pytest.fixture
def serve(django, monkeypatch):
    """`serve(handler, *views)` gives a client of these views, by the name of the handler."""
    from django.core.handlers.asgi import ASGIHandler
    from django.db import connections
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime import threads
    from pergola_runtime.lean import LeanHandler

    with ExitStack() as until_the_end:

        def serving(handler, *views, middleware=()):
            threads.open_pool()
            monkeypatch.setattr(threads, "pool", threads.Pool(3))
            monkeypatch.setitem(
                connections.settings["default"], "CONN_MAX_AGE", 10 if handler == "lean" else 0
            )
            urls = ModuleType("urls")
            urls.urlpatterns = [path(view.__name__, view) for view in views]
            until_the_end.enter_context(override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=urls))
            return Client({"django": ASGIHandler, "lean": LeanHandler}[handler]())

        yield serving


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
    assert released.wait(60)
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


class Synchronous:
    """As WhiteNoise's: the rest of the request is within its call."""

    async_capable = False
    sync_capable = True

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


async def seconds_of(client, name, number):
    """For each of some requests in turn, while so many others wait."""
    took = []
    for _ in range(number):
        began = time.perf_counter()
        answer = await client.request("GET", f"/{name}")
        took.append(time.perf_counter() - began)
        assert answer.status == 200, answer
    return took


@pytest.mark.parametrize(
    ("view", "number", "middleware"),
    [
        (sleeping, 20, ()),
        (sleeping, 200, ()),
        (calling, 200, ()),
        (polling, 60, ("test_blocking.Synchronous",)),
    ],
)
def test_a_page_waits_no_longer_than_under_djangos_handler(serve, view, number, middleware):
    async def measure(handler):
        released.clear()
        entered.clear()
        client = serve(handler, view, page, health, middleware=middleware)
        waiting = [asyncio.create_task(client.request("GET", f"/{view.__name__}")) for _ in range(number)]
        began = time.perf_counter()
        try:
            first = await seconds_of(client, "page", 1)  # behind all of them
            while len(entered) < number:
                assert time.perf_counter() < began + 60, f"{len(entered)} of {number} wait"
                await asyncio.sleep(0.01)
            return first, [await seconds_of(client, name, TRIES) for name in ("page", "health")]
        finally:
            released.set()
            answers = await asyncio.gather(*waiting)
            assert {answer.body for answer in answers} == {b"woke up"}

    measured = {handler: asyncio.run(measure(handler)) for handler in ("django", "lean")}
    told = {
        handler: (
            round(first[0], 3),
            *(round(statistics.median(one), 4) for one in rest),
            round(max(rest[0]), 3),
        )
        for handler, (first, rest) in measured.items()
    }
    print(view.__name__, number, told)
    for ours, djangos in zip(measured["lean"][1], measured["django"][1], strict=True):
        assert statistics.median(ours) < 2 * statistics.median(djangos) + 0.02, told
    assert measured["lean"][0][0] < 2 * measured["django"][0][0] + 0.5, told


STREAMS = 1000
IDLE_SECONDS = 3  # more than threads.REST


def used():
    """Threads, descriptors (a connection is one) and memory in MB of this process."""
    memory = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    return threading.active_count(), len([*Path("/proc/self/fd").iterdir()]), int(memory) // 1024


def test_open_streams_that_queried_once_delay_nothing(serve):
    async def measure(handler):
        released.clear()
        entered.clear()
        client = serve(handler, streaming, page, health)
        alone = [statistics.median(await seconds_of(client, name, TRIES)) for name in ("page", "health")]
        before = used()
        streams = [asyncio.create_task(client.request("GET", "/streaming")) for _ in range(STREAMS)]
        began = time.perf_counter()
        try:
            while len(entered) < STREAMS:
                assert time.perf_counter() < began + 120, f"{len(entered)} of {STREAMS} stream"
                await asyncio.sleep(0.01)
            await asyncio.sleep(IDLE_SECONDS)
            beside = [statistics.median(await seconds_of(client, name, TRIES)) for name in ("page", "health")]
            return alone, beside, [now - then for now, then in zip(used(), before, strict=True)]
        finally:
            released.set()
            answers = await asyncio.gather(*streams)
            assert all(answer.body.endswith(b" users") for answer in answers)

    measured = {handler: asyncio.run(measure(handler)) for handler in ("django", "lean")}
    print(f"{STREAMS} streams, seconds without and with them, threads, descriptors, MB: {measured}")
    (_, djangos, djangos_use), (alone, ours, our_use) = measured["django"], measured["lean"]
    for mine, without, theirs in zip(ours, alone, djangos, strict=True):
        assert mine < 2 * max(without, theirs) + 0.02
    for mine, theirs in zip(our_use, djangos_use, strict=True):
        assert mine <= theirs * 1.1 + 10
