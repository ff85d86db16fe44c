"""Limit the connections to Redis of Django's RedisCache, of django-redis and of Channels' layers.

Django makes a pool of connections for each cache client, and under ASGI a client for each request, of which
nothing closes the connections: 600 requests left 300 open. Here the clients of a process that have the same
address and options share one pool. redispool.py has the pools and their limits. What a project sets itself (a
pool class, a number of connections, time limits, a retry) stays as it is.
"""

import functools
import importlib
import logging
import threading

from pergola_runtime.versions import installed, untested

logger = logging.getLogger(__name__)
lock = threading.Lock()
applied = False


def limit_connections():
    """Patch the libraries that the application has, in tested versions. A second call changes nothing."""
    global applied
    with lock:
        if applied:
            return
        applied = True
        for package, patch in (
            ("Django", share_pools_of_django),
            ("django-redis", share_pools_of_django_redis),
            ("channels-redis", limit_channel_layers),
        ):
            if not (installed("redis") and installed(package)):
                continue
            if reason := untested("redis", package):
                logger.warning("%s: connections to Redis are not limited: %s", package, reason)
            else:
                patch()


def shared(pools, key, make):
    """The pool of this key. Two threads that need it at the same time get the same one."""
    if key not in pools:
        with lock:
            if key not in pools:
                pools[key] = make()
    return pools[key]


def key_of(value):
    """A key for options. Not their repr(): an object that hides its password would equal another one."""
    if isinstance(value, dict):
        return tuple((name, key_of(value[name])) for name in sorted(value))
    if isinstance(value, (list, tuple)):
        return tuple(map(key_of, value))
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    return value


def share_pools_of_django():
    from django.core.cache.backends.redis import RedisCacheClient

    from pergola_runtime.redispool import BoundedPool

    pools = {}
    initialize = RedisCacheClient.__init__

    @functools.wraps(initialize)
    def initialize_with_our_pool(self, servers, serializer=None, pool_class=None, *args, **options):
        initialize(self, servers, serializer, pool_class or BoundedPool, *args, **options)

    def get_connection_pool(self, write):
        url = self._servers[self._get_connection_pool_index(write)]
        key = self._pool_class, url, key_of(self._pool_options)
        return shared(pools, key, lambda: self._pool_class.from_url(url, **self._pool_options))

    RedisCacheClient.__init__ = initialize_with_our_pool
    RedisCacheClient._get_connection_pool = get_connection_pool


def share_pools_of_django_redis():
    """Its own pools are shared by URL alone: another alias's `db` option would have no effect."""
    from django_redis.pool import ConnectionFactory
    from redis import ConnectionPool

    from pergola_runtime.redispool import BoundedPool

    pools = {}

    def get_or_create_connection_pool(self, params):
        # a factory of a project, or that for Redis Sentinel, may have set a class of its own
        if "CONNECTION_POOL_CLASS" not in self.options and self.pool_cls is ConnectionPool:
            self.pool_cls = BoundedPool
        key = type(self), params["url"], key_of(self.options)
        return shared(pools, key, lambda: self.get_connection_pool(params))

    ConnectionFactory.get_or_create_connection_pool = get_or_create_connection_pool


def limit_channel_layers():
    """A layer has a pool for each event loop, which it closes with the loop."""
    from channels_redis import utils

    from pergola_runtime.redispool import AsyncBoundedPool

    create_pool = utils.create_pool

    @functools.wraps(create_pool)
    def create_bounded_pool(host):
        if "master_name" in host:  # Redis Sentinel
            return create_pool(host)
        options = dict(host)
        address = options.pop("address", None)
        return AsyncBoundedPool.from_url(address, **options) if address else AsyncBoundedPool(**options)

    for name in ("core", "pubsub", "utils"):
        importlib.import_module(f"channels_redis.{name}").create_pool = create_bounded_pool
