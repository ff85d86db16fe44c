"""What the deploy, the monitoring and a person ask: does the process answer, and can it serve?"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

logger = logging.getLogger(__name__)

SECONDS = 2  # for each check; they run at the same time

# A query that hangs keeps its thread. In the request's own thread it would hold the answer back as well; in
# these, a database that hangs costs two threads and not one a probe.
threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="readyz")


def in_thread(check):
    def run():
        try:
            check()
        finally:
            connection.close()  # no request ends in this thread, so that nobody else would

    return sync_to_async(run, thread_sensitive=False, executor=threads)


@in_thread
def database():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@in_thread
def migrations():
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        raise NotMigratedError(", ".join(str(migration) for migration, _ in missing))


class NotMigratedError(Exception):
    pass


async def redis_answers():
    # Without redis-py's retries: the probe itself comes again.
    async with Redis.from_url(settings.REDIS_URL, retry=Retry(NoBackoff(), 0)) as client:
        await client.ping()


async def outcome(name, check):
    """In public only the kind of failure: messages name hosts and users."""
    try:
        async with asyncio.timeout(SECONDS):
            await check()
    except TimeoutError:
        logger.warning("not ready: %s did not answer within %s s", name, SECONDS)
        return "timeout"
    except Exception as error:
        logger.warning("not ready: %s: %s: %s", name, type(error).__name__, error)
        return type(error).__name__
    return "ok"


@never_cache
@require_http_methods(["GET", "HEAD"])
async def livez(request):
    return JsonResponse({"live": True})


@never_cache
@require_http_methods(["GET", "HEAD"])
async def readyz(request):
    checks = {"database": database, "migrations": migrations}
    if settings.REDIS_URL:
        checks["redis"] = redis_answers
    outcomes = await asyncio.gather(*(outcome(name, check) for name, check in checks.items()))
    ready = all(result == "ok" for result in outcomes)
    body = {"ready": ready, "checks": dict(zip(checks, outcomes, strict=True))}
    return JsonResponse(body, status=200 if ready else 503)
