"""cache_page for async views.

Django's own decorator takes an `async def`, but asks the cache in the event loop: with Redis that is a wait
on a socket, which stops the worker. The same middleware, its two halves each in the request's thread:
"""

import contextlib
import functools
import logging

from asgiref.sync import sync_to_async
from django.middleware.cache import CacheMiddleware
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


def async_cache_page(seconds):
    def decorate(view):
        middleware = CacheMiddleware(view, page_timeout=seconds)
        ask = sync_to_async(middleware.process_request)
        keep = sync_to_async(middleware.process_response)

        @functools.wraps(view)
        async def wrapper(request, *args, **kwargs):
            try:
                kept = await ask(request)
            except RedisError as error:
                logger.warning("answering without the cache: %s: %s", type(error).__name__, error)
                return await view(request, *args, **kwargs)
            if kept is not None:
                return kept
            response = await view(request, *args, **kwargs)
            with contextlib.suppress(RedisError):
                await keep(request, response)
            return response

        return wrapper

    return decorate
