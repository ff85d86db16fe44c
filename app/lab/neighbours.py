"""Sleepers of one kind, and fast requests among them, live, on the lab's own services.

This worker only asks: the sleepers sleep in other processes, so that whoever looks harms nobody but the one
who looks next. One at a time, whatever the number of workers and hosts, and after each a rest as long as it
took, as in turns.py: who asks again and again keeps the threads busy for half of the time at most.
"""

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import dataclass

import aiohttp
from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError

from lab.turns import BusyError, UnavailableError

LOCK = "lab:neighbours"
LIMIT = 20  # seconds for the whole
EVERY = 0.1  # seconds between two rounds of fast requests; none waits for those before it
ROUNDS = 8


@dataclass(frozen=True)
class Experiment:
    title: str
    service: str
    sleep: str
    sleepers: int
    seconds: float
    fast: tuple[str, ...]
    lesson: str
    crowd: bool = False  # the fast view can tell when all are asleep: not before that is it of interest
    hang_up: bool = False  # who sleeps in the event loop can be sent home; a thread sleeps to its end


EXPERIMENTS = {
    "async": Experiment(
        "500 async views that sleep, one Uvicorn process",
        "asgi",
        "async",
        500,
        12,
        ("async",),
        "All sleep in the event loop's one thread, and the fast view is answered among them. But look at the "
        "process' threads: Django opens one for each request, as soon as anything synchronous runs for it, "
        "and something always does.",
        crowd=True,
        hang_up=True,
    ),
    "wsgi": Experiment(
        "One def view that sleeps, one sync worker of gunicorn",
        "wsgi",
        "sync",
        1,
        1,
        ("sync",),
        "A sync worker serves one request at a time: everybody waits for the sleeper to end.",
    ),
    "wsgi-async": Experiment(
        "The same async views under WSGI",
        "wsgi",
        "async",
        1,
        1,
        ("async",),
        "They run, each in an event loop that is made for it, but the worker still serves one request at a "
        "time.",
    ),
    "def": Experiment(
        "100 def views that sleep, one Uvicorn process",
        "asgi",
        "sync",
        100,
        2,
        ("async", "sync"),
        "Each sleeps in a thread of its own, which Django makes for the request. There is no pool that could "
        "be full, so no bound but memory and the unit's limits: the fast views are answered, at the price "
        "of a thread for each sleeper.",
        crowd=True,
    ),
    "pool": Experiment(
        "40 calls of asyncio.to_thread that sleep, one Uvicorn process",
        "asgi",
        "pool",
        40,
        0.4,
        ("async", "pool"),
        "Here is a pool, and a bound: the event loop's has as many threads as processors and four more, 32 "
        "at most. Who needs none of them is answered; who does waits for all that asked before. "
        "sync_to_async(thread_sensitive=False) takes its threads from the same pool.",
    ),
    "blocking": Experiment(
        "One blocking call in an async view, one Uvicorn process",
        "asgi",
        "blocking",
        1,
        1,
        ("async",),
        "The call holds the event loop's thread: everybody waits for its end, whatever they came for.",
    ),
}


def socket(service):
    return str({"asgi": settings.LAB_ASGI_SOCKET, "wsgi": settings.LAB_WSGI_SOCKET}[service])


class Run:
    def __init__(self, session):
        self.session, self.began, self.fast = session, time.monotonic(), []

    def now(self):
        return time.monotonic() - self.began

    async def ask(self, path, **params):
        """What the view says, in seconds since the beginning: we share the machine's monotonic clock."""
        sent = self.now()
        async with self.session.get(f"/{path}/", params=params) as response:
            response.raise_for_status()
            said = await response.json()
        times = {name: said[name] - self.began for name in ("began", "ended")}
        return said | times | {"sent": sent, "answered": self.now()}

    async def ask_fast(self, view):
        self.fast.append(await self.ask(f"fast/{view}"))

    async def until_all_sleep(self, crowd):
        while not any(task.done() for task in crowd):
            if (await self.ask("fast/async"))["asleep"] >= len(crowd):
                return
            await asyncio.sleep(EVERY)


@contextlib.asynccontextmanager
async def one_at_a_time():
    """Of all workers of all hosts. The lock goes by itself, if its holder dies and after the rest."""
    token = secrets.token_hex(8)
    began = time.monotonic()
    try:
        mine = await cache.aadd(LOCK, token, LIMIT + 5)
    except RedisError:
        raise UnavailableError("Redis does not answer, and it alone knows whose turn it is") from None
    if not mine:
        raise BusyError("this is shown to somebody else just now, or was only just")
    try:
        yield
    finally:
        with contextlib.suppress(RedisError):
            if await cache.aget(LOCK) == token:
                # whole seconds: Redis' cache cuts off what is behind them, and takes 0 for "over already"
                await cache.aset(LOCK, "rest", max(1, round(time.monotonic() - began)))


async def run(experiment, sleepers):
    async with one_at_a_time():
        connector = aiohttp.UnixConnector(socket(experiment.service), limit=0, force_close=True)
        try:
            async with (
                asyncio.timeout(LIMIT),
                aiohttp.ClientSession("http://lab", connector=connector) as session,
            ):
                return await watched(Run(session), experiment, sleepers)
        except (aiohttp.ClientError, TimeoutError) as error:
            what = f"the lab's {experiment.service} service does not answer ({type(error).__name__})"
            raise UnavailableError(what) from None


async def watched(run, experiment, sleepers):
    """Enough seen, it hangs up, as it does when its visitor leaves: that cancels async views that sleep."""
    sleep = f"sleep/{experiment.sleep}"
    crowd = [asyncio.create_task(run.ask(sleep, seconds=experiment.seconds)) for _ in range(sleepers)]
    asked = []
    try:
        if experiment.crowd:
            await run.until_all_sleep(crowd)
        asleep = run.now()
        for _ in range(ROUNDS):
            await asyncio.wait(crowd, timeout=EVERY)
            asked += [asyncio.create_task(run.ask_fast(view)) for view in experiment.fast]
        await asyncio.gather(*asked)
        if not experiment.hang_up:
            await asyncio.wait(crowd)
        slept = [task.result() for task in crowd if task.done()]
        ended = run.now()
    finally:
        for task in [*crowd, *asked]:
            task.cancel()
        await asyncio.gather(*crowd, *asked, return_exceptions=True)
    return told(run.fast, slept, sleepers, asleep, ended)


def told(fast, slept, sleepers, asleep, ended):
    for one in fast:
        one["waited_for"] = sum(one["sent"] < sleeper["ended"] <= one["ended"] for sleeper in slept)
    return {
        "process": os.getpid(),
        "sleepers": {
            "asked": sleepers,
            "slept_to_the_end": len(slept),
            "most_asleep": max((one["asleep"] for one in fast), default=0),
            "began": min((one["began"] for one in slept), default=asleep),
            "ended": max((one["ended"] for one in slept), default=ended),
            "first": min(slept, key=lambda one: one["began"], default=None),
        },
        "fast": sorted(fast, key=lambda one: one["sent"]),
    }
