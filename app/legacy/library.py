"""Stands in for a library from before async: it blocks, and a session of it belongs to one thread."""

import threading
import time

from core.models import Visit
from lab.work import interval, place


class WrongThreadError(RuntimeError):
    pass


class SmsSession:
    """As SQLite's and many vendors' connections do, it refuses any thread but the one that opened it."""

    def __init__(self):
        self.thread = threading.get_ident()

    def send(self, number, text, seconds):
        """`seconds` is how long the gateway takes."""
        if threading.get_ident() != self.thread:
            raise WrongThreadError("this session was opened in another thread")
        began = time.monotonic()
        time.sleep(seconds)
        return {"number": number, "characters": len(text)} | place() | interval(began)


def report(seconds):
    """Reads through the sync ORM, and takes its time to write it up."""
    began = time.monotonic()
    visits = Visit.objects.count()
    time.sleep(seconds)
    return {"visits": visits} | place() | interval(began)
