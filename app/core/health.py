"""What the deploy, the monitoring and a person ask: does the process answer, and can it serve?"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

logger = logging.getLogger(__name__)

SECONDS = 2  # for each check; they run at the same time

# What was applied when nothing was missing. While all of it still is, nothing is missing, as the files of a
# release do not change: one query tells, without the graph of all applications' migrations.
enough = set()


class NotMigratedError(Exception):
    pass


def database():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def migrations():
    applied = set(MigrationRecorder(connection).applied_migrations())
    if enough and enough <= applied:
        return
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        raise NotMigratedError(", ".join(str(migration) for migration, _ in missing))
    enough.update(applied)


def redis():
    # Without redis-py's retries: the probe itself comes again.
    once = {"retry": Retry(NoBackoff(), 0), "socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    with Redis.from_url(settings.REDIS_URL, **once) as client:
        client.ping()


CHECKS = {"database": database, "migrations": migrations, "redis": redis}

# A thread for each: one that hangs costs its own and no other, and none waits for a turn of the event loop,
# which is long where much is asked at once.
threads = ThreadPoolExecutor(max_workers=len(CHECKS), thread_name_prefix="readyz")
looks = {}  # the last of each check; who asks while it is under way waits for the same


def look(name):
    """In public only the kind of failure: messages name hosts and users."""
    try:
        CHECKS[name]()
    except Exception as error:
        logger.warning("not ready: %s: %s: %s", name, type(error).__name__, error)
        return "timeout" if isinstance(error, RedisTimeoutError) else type(error).__name__
    finally:
        connection.close()  # no request ends in this thread, so that nobody else would
    return "ok"


async def outcome(name):
    if name not in looks or looks[name].done():
        looks[name] = threads.submit(look, name)
    found = looks[name]
    # (!) not timeout(): what came in time is in time, however late the event loop hears of it
    await asyncio.wait([asyncio.wrap_future(found)], timeout=SECONDS)
    if found.done():
        return found.result()
    logger.warning("not ready: %s did not answer within %s s", name, SECONDS)
    return "timeout"


@never_cache
@require_http_methods(["GET", "HEAD"])
async def livez(request):
    return JsonResponse({"live": True})


@never_cache
@require_http_methods(["GET", "HEAD"])
async def readyz(request):
    checks = [name for name in CHECKS if name != "redis" or settings.REDIS_URL]
    outcomes = await asyncio.gather(*map(outcome, checks))
    ready = all(result == "ok" for result in outcomes)
    body = {"ready": ready, "checks": dict(zip(checks, outcomes, strict=True))}
    return JsonResponse(body, status=200 if ready else 503)
