"""News of a job from whoever changes it to whoever watches, through Redis pub/sub.

Nothing is kept there: a watcher that was away, or that Redis forgot, finds the truth in the database.
"""

import asyncio
import contextlib
import json
import logging

import redis
from django.conf import settings
from pergola_runtime.redispool import AsyncBoundedPool, BoundedPool
from redis.asyncio import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

# redis-py's own time limits and retries would delay a job or a request by seconds with each push while Redis
# does not answer.
client = redis.Redis(connection_pool=BoundedPool.from_url(settings.REDIS_URL)) if settings.REDIS_URL else None


def channel(number):
    return f"jobs:{number}"


def publish(state):
    """For sync code. A push that fails costs seconds, as watchers look by themselves from time to time."""
    if client is None:
        return
    try:
        client.publish(channel(state["id"]), json.dumps(state, ensure_ascii=False))
    except RedisError as error:
        logger.warning("nobody is told about job %s: %s: %s", state["id"], type(error).__name__, error)


@contextlib.asynccontextmanager
async def listening(number):
    """Gives a coroutine function: the next state that is pushed, or None after so many seconds without."""
    if not settings.REDIS_URL:
        yield nothing
        return
    pool = AsyncBoundedPool.from_url(settings.REDIS_URL, max_connections=1)
    async with (
        Redis.from_pool(pool) as own,
        own.pubsub(ignore_subscribe_messages=True) as subscription,
    ):
        try:
            await subscription.subscribe(channel(number))
        except RedisError as error:
            logger.warning("job %s is watched without pushes: %s: %s", number, type(error).__name__, error)
            yield nothing
        else:
            yield lambda seconds: pushed(subscription, seconds)


async def nothing(seconds):
    await asyncio.sleep(min(seconds, 1))


async def pushed(subscription, seconds):
    try:
        message = await subscription.get_message(timeout=seconds)
    except RedisError as error:
        logger.warning("no pushes for now: %s: %s", type(error).__name__, error)
        return await nothing(seconds)
    return json.loads(message["data"]) if message else None
