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


class Pools:
    """Pools by what they were made with: a class, a URL and options.

    They are few, and looked for by comparison: an option may have no hash (from Django 6.1 on, each client
    has a DriverInfo of its own), and its repr() may hide a password.
    """

    def __init__(self):
        self.found = []  # [(what it was made with, pool)]

    def get(self, *wanted, make):
        """Two threads that need a pool at the same time get the same one."""
        return self.look(wanted) or self.add(wanted, make)

    def look(self, wanted):
        return next((pool for made_with, pool in self.found if made_with == wanted), None)

    def add(self, wanted, make):
        with lock:
            pool = self.look(wanted)
            if pool is None:
                pool = make()
                self.found.append((wanted, pool))
            return pool


def share_pools_of_django():
    from django.core.cache.backends.redis import RedisCacheClient

    from pergola_runtime.redispool import BoundedPool

    pools = Pools()
    initialize = RedisCacheClient.__init__

    @functools.wraps(initialize)
    def initialize_with_our_pool(self, servers, serializer=None, pool_class=None, *args, **options):
        initialize(self, servers, serializer, pool_class or BoundedPool, *args, **options)

    def get_connection_pool(self, write):
        url = self._servers[self._get_connection_pool_index(write)]
        options = self._pool_options
        return pools.get(
            self._pool_class, url, options, make=lambda: self._pool_class.from_url(url, **options)
        )

    RedisCacheClient.__init__ = initialize_with_our_pool
    RedisCacheClient._get_connection_pool = get_connection_pool


def share_pools_of_django_redis():
    """Its own pools are shared by URL alone: another alias's `db` option would have no effect."""
    from django_redis.pool import ConnectionFactory
    from redis import ConnectionPool

    from pergola_runtime.redispool import BoundedPool

    pools = Pools()

    def get_or_create_connection_pool(self, params):
        # a factory of a project, or that for Redis Sentinel, may have set a class of its own
        if "CONNECTION_POOL_CLASS" not in self.options and self.pool_cls is ConnectionPool:
            self.pool_cls = BoundedPool
        wanted = type(self), params["url"], self.options
        return pools.get(*wanted, make=lambda: self.get_connection_pool(params))

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
