"""A deadlock of threads and event loop, on a leash, beside the form that cannot lock.

All thread-sensitive calls of a request run in one thread. A sync function in it that waits, by its own means,
for a coroutine that itself makes such a call waits for a thread that only its own end will free.
`async_to_sync` knows: while it waits, it lends its thread to the calls from further in.

Under a server each request has its own thread, and nothing tells that this happened. Where all share one, as
in a management command, asgiref raises RuntimeError ("would deadlock") instead.
"""

import asyncio
import concurrent.futures
import threading
import time

from asgiref.sync import async_to_sync, sync_to_async

from lab.turns import Turns
from lab.work import interval, place

turns = Turns(1)


def query():
    """Any thread-sensitive call: the ORM's, the session's, the cache's."""
    began = time.monotonic()
    return place() | interval(began)


async def inner():
    return await sync_to_async(query)()


class Deadlock:
    """`seconds` is the leash; whoever gives up earlier (a closed browser) cancels, and frees the thread."""

    def __init__(self):
        self.began = threading.Event()
        self.ended = threading.Event()
        self.outcome = self.waiting = None
        self.given_up = False

    def outer(self, loop, seconds):
        began = time.monotonic()
        self.waiting = asyncio.run_coroutine_threadsafe(inner(), loop)
        if self.given_up:
            self.waiting.cancel()
        self.began.set()
        try:
            inside = self.waiting.result(seconds)
            self.outcome = "answered"
        except TimeoutError:
            inside, self.outcome = None, "deadlock"
        except concurrent.futures.CancelledError:
            inside, self.outcome = None, "cancelled"
        finally:
            self.waiting.cancel()
            self.ended.set()
        return {"outcome": self.outcome, "outer": place() | interval(began), "inner": inside}

    async def run(self, seconds):
        try:
            return await sync_to_async(self.outer)(asyncio.get_running_loop(), seconds)
        finally:
            # Nobody can cancel a thread; the coroutine that it waits for can be cancelled.
            self.given_up = True
            if self.waiting:
                self.waiting.cancel()


async def mended():
    def outer():
        began = time.monotonic()
        inside = async_to_sync(inner)()
        return {"outcome": "answered", "outer": place() | interval(began), "inner": inside}

    return await sync_to_async(outer)()
