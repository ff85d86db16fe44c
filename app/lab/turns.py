"""What harms a worker takes turns, so that a visitor shows the harm and cannot do it.

A blocking call of two seconds is a lesson; a hundred of them in a row are an outage.
"""

import contextlib
import time


class BusyError(Exception):
    pass


class UnavailableError(Exception):
    """What a demonstration needs is not there."""


class Turns:
    """So many at once in this process, and after each a rest as long as it took. For the event loop alone."""

    def __init__(self, places):
        self.places = places
        self.reset()

    def reset(self):
        self.taken = 0
        self.opens = 0.0

    @contextlib.contextmanager
    def one(self):
        began = time.monotonic()
        if self.taken >= self.places or began < self.opens:
            raise BusyError("this process shows the same to somebody else just now, or has only just done so")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            ended = time.monotonic()
            self.opens = max(self.opens, ended + (ended - began))
