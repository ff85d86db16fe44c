"""A value that is dear to compute, kept in the cache, and computed by one asker of all workers and hosts.

Without it, each request that finds the value gone computes it, all at the moment when most want it.
"""

import asyncio
import contextlib
import logging
import secrets
import time

from django.core.cache import cache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

POLL = 0.05


async def get_or_compute(key, compute, *, fresh=10, stale=60, limit=5):
    """(value, outcome). For `fresh` seconds the value is handed out as it is. For `stale` more, one asker
    computes it anew while the others get the old one. Without any, they wait for the one.

    `limit` is what computing may take: so long does the lock live if its holder dies.
    """
    deadline = time.monotonic() + 2 * limit
    found_it = "hit"
    while True:
        try:
            found = await cache.aget(key)
            if found and time.time() < found[1]:
                return found[0], found_it
            mine = await lock(key, limit)
        except RedisError as error:
            # Slow is better than down.
            logger.warning("computing without the cache: %s: %s", type(error).__name__, error)
            async with asyncio.timeout(limit):
                return await compute(), "bypassed"
        if mine:
            return await computed(key, mine, compute, fresh, stale, limit, found_it)
        if found:
            return found[0], "stale"
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody could compute {key} within {2 * limit} s")
        found_it = "waited"
        await asyncio.sleep(POLL)


async def lock(key, limit):
    """A token, or None where somebody else holds the lock. One second more than computing may take, so that
    it is never somebody else's by the time it is given back."""
    token = secrets.token_hex(8)
    return token if await cache.aadd(f"{key}:lock", token, limit + 1) else None


async def computed(key, token, compute, fresh, stale, limit, found_it):
    try:
        # The holder before us may have finished between our look and our lock.
        with contextlib.suppress(RedisError):
            found = await cache.aget(key)
            if found and time.time() < found[1]:
                return found[0], found_it
        async with asyncio.timeout(limit):
            value = await compute()
        with contextlib.suppress(RedisError):  # the value is here, whatever became of Redis
            await cache.aset(key, (value, time.time() + fresh), fresh + stale)
        return value, "computed"
    finally:
        # Also after an error or a cancellation: the next asker tries.
        with contextlib.suppress(RedisError):
            if await cache.aget(f"{key}:lock") == token:
                await cache.adelete(f"{key}:lock")
