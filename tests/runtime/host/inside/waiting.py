"""Tests wait for a condition, never for seconds."""

import asyncio
import time

# Seconds. What these waits are for takes a few; the machine may be busy.
PATIENCE = 120


async def until(condition, what):
    """Return when the condition is true. Raises AssertionError when the time is up."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s: {what() if callable(what) else what}"
        await asyncio.sleep(0.01)
