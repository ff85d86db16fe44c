"""Tests wait for a condition, never for seconds."""

import time

# Seconds. What these waits are for takes a few; a machine may be four times slower than ours, and busy.
PATIENCE = 120


def wait_until(condition, message, seconds=PATIENCE):
    """Return the condition's first true value.

    Raises AssertionError with the message, or with what it returns if it is a function, when the time is up.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{message() if callable(message) else message} within {seconds} s")
        time.sleep(0.1)
    return value
