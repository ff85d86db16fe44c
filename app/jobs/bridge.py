"""`async_to_sync`: sync code that calls async code, and what a call costs.

Where an event loop waits behind the thread (a `def` view or a sync middleware under ASGI) the coroutine runs
on that loop: the call costs two hops. Where there is none (WSGI, a Celery task, a management command) each
call makes an event loop and closes it, and whatever belongs to a loop, as pooled clients, begins anew.
"""

import asyncio
import statistics
import threading
import time

from asgiref.sync import async_to_sync, sync_to_async


async def where():
    """The least that async code can do: say on which event loop it runs."""
    return asyncio.get_running_loop()


def here():
    pass


def measured(call, calls):
    """The median of a call in microseconds, and on how many event loops the calls ran."""
    loops, taken = [], []  # the loops themselves: the id of one that is gone is given to the next
    for _ in range(calls):
        began = time.perf_counter()
        loops.append(call())
        taken.append(time.perf_counter() - began)
    found = {id(loop) for loop in loops if loop is not None}
    return {"microseconds": round(statistics.median(taken) * 1e6, 1), "loops": len(found)}


def from_here(calls):
    """As a `def` view, a sync middleware, a task and a command do it; what it costs is where it is called."""
    # (!) made in the thread that calls it: one that is made while a module is imported keeps the event loop
    # that happened to run then
    return measured(async_to_sync(where), calls)


def without_a_loop(calls):
    """In a thread that no event loop waits for, as all of them are under WSGI."""
    rows = []
    thread = threading.Thread(target=lambda: rows.append(from_here(calls)))
    thread.start()
    thread.join()
    return rows[0]


async def to_threads(calls):
    """The other direction, for comparison."""
    taken = []
    call = sync_to_async(here)
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - began)
    return {"microseconds": round(statistics.median(taken) * 1e6, 1), "loops": 1}


def costs(calls):
    return {
        "a plain call": measured(here, calls),
        "async_to_sync, from here": from_here(calls),
        "async_to_sync, no event loop behind it": without_a_loop(calls),
        "sync_to_async, the other way": async_to_sync(to_threads)(calls),
    }


def sync_only_middleware(get_response):
    """A sync middleware that asks async code, around the one view that shows it. In MIDDLEWARE it would take
    every async view's request through a thread, which waits until the answer is there."""

    def middleware(request):
        began = time.perf_counter()
        async_to_sync(where)()
        request.bridge_milliseconds = round((time.perf_counter() - began) * 1000, 3)
        return get_response(request)

    return middleware
