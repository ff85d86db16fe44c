"""Few connections to Redis, and none that waits for long, for the caches that projects configure.

Django's RedisCache makes a pool of connections for each of its clients, and under ASGI a client for each request:
600 requests left 300 connections open. Here all clients of a process that have the same address and options share
one pool, of MOST connections, also django-redis's. A Redis that hangs is waited for once, for at most WAIT seconds
in all; for PAUSE seconds after that, whoever asks is told so at once.

Applied by get_asgi_application(); a pool class, a number of connections or time limits that a project sets for
itself stay.
"""

import threading
import time

MOST = 10  # connections of a process to one address; a command takes a tenth of a millisecond of it
WAIT = 0.45  # seconds: for a connection of the pool, and again for the answer
PAUSE = 1.0

pools = {}
lock = threading.Lock()


def bounded():
    """The class of the pools; made when redis-py is there."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    class BoundedPool(redis.BlockingConnectionPool):
        def __init__(self, **options):
            options.setdefault("max_connections", MOST)
            options.setdefault("timeout", WAIT)
            options.setdefault("socket_timeout", WAIT)
            options.setdefault("socket_connect_timeout", WAIT)
            # once, as an idle connection may have been closed meanwhile; and not where time is up
            options.setdefault("retry", Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)))
            self.hung = 0.0
            super().__init__(**options)

        def get_connection(self, *given, **named):
            if time.monotonic() < self.hung + PAUSE:
                raise redis.TimeoutError("Redis did not answer just now, and is not asked again for a moment")
            try:
                return super().get_connection(*given, **named)
            except (redis.ConnectionError, redis.TimeoutError):
                self.hung = time.monotonic()
                raise

        def release(self, connection):
            super().release(connection)

    return BoundedPool


def share_pools():
    """Let Django's clients of one address share a bounded pool."""
    from django.core.cache.backends.redis import RedisCacheClient

    def get_connection_pool(self, write):
        index = self._get_connection_pool_index(write)
        key = (self._pool_class, self._servers[index], repr(sorted(self._pool_options.items(), key=str)))
        with lock:
            if key not in pools:
                pools[key] = self._pool_class.from_url(self._servers[index], **self._pool_options)
            return pools[key]

    RedisCacheClient._get_connection_pool = get_connection_pool
