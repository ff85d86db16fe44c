"""A process beside the worker for what computes: Python lets one thread of a process compute at a time.

The pool is the worker's own and made at its first use. `spawn`, because a forked child would have the
worker's listening socket and the locks of its threads, held by threads that it does not have. It needs no
writable code, no new privilege and no namespace, so that it runs inside the units' sandbox.
"""

import asyncio
import functools
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

# One: the cores are the workers' already.
PROCESSES = 1


def end_with_the_worker():
    """A worker that is told to stop or killed runs no exit handlers, and the pool's queue stays open on the
    child's own end: without this the child would wait for work for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def start_tracker():
    """The standard library's helper that removes a dead worker's semaphores. It would call each stop of a
    worker a leak, in the journal; it takes its filters from the interpreter that starts it."""
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


@functools.cache
def pool():
    start_tracker()
    return ProcessPoolExecutor(
        PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_the_worker
    )


def close():
    """Idle children go, a running one finishes first; the next use makes a new pool."""
    if pool.cache_info().currsize:
        pool().shutdown(wait=False, cancel_futures=True)
        pool.cache_clear()


async def run(function, *args):
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(pool(), function, *args)
    except BrokenProcessPool:
        # Somebody killed the child (out of memory?), and a broken pool stays broken.
        close()
        return await loop.run_in_executor(pool(), function, *args)
