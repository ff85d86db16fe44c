"""A project whose caches, sessions and channel layers are in Redis."""

import os
import time

from django.conf import settings
from pergola_runtime import redispool

# TIMES: so many times the limits on waiting, for tests of what they do not limit
for limit in ("COMMAND_SECONDS", "CONNECT_SECONDS", "CHECK_SECONDS", "OUTAGE_SECONDS"):
    setattr(redispool, limit, getattr(redispool, limit) * float(os.environ.get("TIMES", "1")))

LOCATION = os.environ.get("REDIS_URL", "redis://127.0.0.1:1")
DJANGO, DJANGO_REDIS = "django.core.cache.backends.redis.RedisCache", "django_redis.cache.RedisCache"
PREFIXES = {"KEY_PREFIX": "a"}, {"KEY_PREFIX": "b"}


def cache(backend, location=LOCATION, **options):
    return {"BACKEND": backend, "LOCATION": location, **options}


def with_database(number):
    """The same URL with another database: of a unix socket it is an argument."""
    return f"{LOCATION}?db={number}" if LOCATION.startswith("unix:") else f"{LOCATION}/{number}"


CACHES = {
    "default": cache(DJANGO),
    "first": cache(DJANGO, with_database(1)),
    "second": cache(DJANGO, with_database(2)),
    "option": cache(DJANGO, OPTIONS={"db": 3}),
    "prefixed": cache(DJANGO, KEY_PREFIX="a"),
    "other": cache(DJANGO, KEY_PREFIX="b"),
    "replicas": cache(DJANGO, [LOCATION, LOCATION, with_database(0)]),
    "own-limit": cache(DJANGO, OPTIONS={"max_connections": 3}),
    "own-class": cache(DJANGO, OPTIONS={"pool_class": "redis.BlockingConnectionPool", "max_connections": 4}),
    "redis-default": cache(DJANGO_REDIS, with_database(4)),
    "redis-first": cache(DJANGO_REDIS, with_database(5)),
    "redis-prefixed": cache(DJANGO_REDIS, with_database(4), KEY_PREFIX="a"),
    "redis-option": cache(DJANGO_REDIS, OPTIONS={"CONNECTION_POOL_KWARGS": {"db": 6}}),
    "redis-other-option": cache(DJANGO_REDIS, OPTIONS={"CONNECTION_POOL_KWARGS": {"db": 7}}),
    "redis-closing": cache(DJANGO_REDIS, with_database(8), OPTIONS={"CLOSE_CONNECTION": True}),
}
LAYERS = {
    name: {
        "BACKEND": f"channels_redis.{name}",
        "CONFIG": {"hosts": [LOCATION]},
    }
    for name in ("core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer")
}
CHANNEL_LAYERS = {
    "default": LAYERS["pubsub.RedisPubSubChannelLayer"],
    "core": LAYERS["core.RedisChannelLayer"],
}

if not settings.configured:
    settings.configure(
        SECRET_KEY="for the tests alone",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        CACHES=CACHES,
        CHANNEL_LAYERS=CHANNEL_LAYERS,
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_CACHE_ALIAS="prefixed",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        DEBUG_PROPAGATE_EXCEPTIONS=False,
        LOGGING_CONFIG=None,
    )

from django.core.asgi import get_asgi_application  # noqa: E402

application = get_asgi_application()

from asgiref.sync import async_to_sync, sync_to_async  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402


def get(request, alias):
    caches[alias].set("key", alias)
    return JsonResponse({"found": caches[alias].get("key")})


async def aget(request, alias):
    await caches[alias].aset("key", alias)
    return JsonResponse({"found": await caches[alias].aget("key")})


async def free(request, alias):
    """In a thread of asyncio's, not in the request's."""
    found = await sync_to_async(caches[alias].get, thread_sensitive=False)("key")
    return JsonResponse({"found": found})


def several(request):
    """Four commands on three aliases of one Redis, each in a try of its own."""
    failures = 0
    for alias in ("default", "first", "redis-default", "default"):
        try:
            caches[alias].get("key")
        except Exception:
            failures += 1
    return JsonResponse({"failures": failures})


def session(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@cache_page(60)
def page(request):
    return JsonResponse({"page": True})


async def send(request, alias):
    await get_channel_layer(alias).group_send("group", {"type": "message"})
    return JsonResponse({"sent": True})


def send_def(request, alias):
    async_to_sync(get_channel_layer(alias).group_send)("group", {"type": "message"})
    return JsonResponse({"sent": True})


async def outage(request):
    """What the process knows of Redis: whether it answers, and until when commands wait for it."""
    (server,) = redispool.servers.values()
    now = time.monotonic()
    return JsonResponse(
        {"answers": server.answers.is_set(), "deadline": server.deadline, "over": now > server.deadline}
    )


urlpatterns = [
    path("outage", outage),
    path("get/<alias>", get),
    path("aget/<alias>", aget),
    path("free/<alias>", free),
    path("several", several),
    path("session", session),
    path("page", page),
    path("send/<alias>", send),
    path("send-def/<alias>", send_def),
]
