"""Tests wait for a condition, never for seconds."""

import time

# Seconds. What these waits are for takes a few; a machine may be four times slower than ours, and busy.
PATIENCE = 120


def wait_until(condition, what, seconds=PATIENCE):
    """Return the condition's first true value.

    Raises AssertionError when the time is up, as in "waited 120 s for nginx to come back". `what` may be a
    function, which is called then.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(0.05)
    return value
