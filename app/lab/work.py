"""Waiting and computing, and where and when it happened.

Without Django, so that a process that only computes need not load it.
"""

import contextlib
import os
import threading
import time


def place():
    return {"process": os.getpid(), "thread": threading.get_native_id()}


def interval(began):
    """The machine's monotonic clock: intervals of different processes can be laid side by side."""
    return {"began": began, "ended": time.monotonic()}


def wait(seconds):
    began = time.monotonic()
    time.sleep(seconds)
    return place() | interval(began)


def crunch(seconds, at_most=None):
    """Keep a core busy for so many seconds of its time, and `at_most` so many by the clock (four times)."""
    at_most = at_most or 4 * seconds
    began, used = time.monotonic(), time.thread_time()
    rounds = 0
    while time.thread_time() - used < seconds and time.monotonic() - began < at_most:
        sum(number * number for number in range(2000))
        rounds += 1
    return place() | interval(began) | {"rounds": rounds}


class Asleep:
    """Who sleeps in this process just now, and in how many threads."""

    def __init__(self):
        self.lock, self.threads = threading.Lock(), {}

    @contextlib.contextmanager
    def one(self):
        sleeper = object()
        with self.lock:
            self.threads[sleeper] = threading.get_native_id()
        try:
            yield
        finally:
            with self.lock:
                del self.threads[sleeper]

    def report(self):
        with self.lock:
            threads = list(self.threads.values())
        return {
            "asleep": len(threads),
            "asleep_in_threads": len(set(threads)),
            "threads": threading.active_count(),
        }


asleep = Asleep()
