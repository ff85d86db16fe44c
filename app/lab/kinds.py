"""Each way to be slow inside an `async def`, and what its neighbours on the same event loop feel."""

import asyncio
import contextlib
import itertools
import time

from asgiref.sync import sync_to_async

from lab import processes
from lab.turns import Turns
from lab.work import crunch, interval, place, wait

TICK = 0.01
harmful, computing = Turns(1), Turns(4)


async def sleep(seconds):
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return place() | interval(began)


async def blocking(seconds):
    """The mistake: this thread is the event loop's, and everybody on it waits."""
    return wait(seconds)


async def to_thread(seconds):
    """The fix, for a call that waits and shares nothing."""
    return await asyncio.to_thread(wait, seconds)


async def free_thread(seconds):
    """The same threads, by asgiref."""
    return await sync_to_async(wait, thread_sensitive=False)(seconds)


async def request_thread(seconds):
    """The request's own thread: the one in which the ORM runs, so that two such calls never overlap."""
    return await sync_to_async(wait)(seconds)


async def cpu_inline(seconds):
    """The same mistake, by computing."""
    return crunch(seconds)


async def cpu_thread(seconds):
    """No fix: a thread that computes gives Python's lock away only every 5 ms, and each neighbour queues."""
    return await asyncio.to_thread(crunch, seconds)


async def cpu_process(seconds):
    """The fix: another process has a lock of its own."""
    return await processes.run(crunch, seconds)


KINDS = {
    "async-sleep": (sleep, None),
    "blocking": (blocking, harmful),
    "to-thread": (to_thread, None),
    "free-thread": (free_thread, None),
    "request-thread": (request_thread, None),
    "cpu-inline": (cpu_inline, harmful),
    "cpu-thread": (cpu_thread, harmful),
    "cpu-process": (cpu_process, computing),
}


async def neighbour(ticks):
    """Somebody on the same event loop who wants to go on every 10 ms, and notes when it was let."""
    while True:
        ticks.append(time.monotonic())
        await asyncio.sleep(TICK)


async def observed(kind, seconds):
    work, turns = KINDS[kind]
    ticks = []
    with turns.one() if turns else contextlib.nullcontext():
        ticker = asyncio.create_task(neighbour(ticks))
        try:
            await asyncio.sleep(2 * TICK)
            done = await work(seconds)
            # Let it run once more: what the work held back shows in its last gap.
            await asyncio.sleep(2 * TICK)
        finally:
            ticker.cancel()
    late = [after - before - TICK for before, after in itertools.pairwise(ticks)]
    during = sum(done["began"] < tick < done["ended"] for tick in ticks)
    return done | {"neighbour": {"turns": during, "longest_wait": max(late)}}
