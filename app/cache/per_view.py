"""cache_page for async views.

Django's own decorator takes an `async def`, but asks the cache in the event loop: with Redis that is a wait
on a socket, which stops the worker. The same middleware, its two halves each in the request's thread:
"""

import functools

from asgiref.sync import sync_to_async
from django.middleware.cache import CacheMiddleware


def async_cache_page(seconds):
    def decorate(view):
        middleware = CacheMiddleware(view, page_timeout=seconds)
        ask = sync_to_async(middleware.process_request)
        keep = sync_to_async(middleware.process_response)

        @functools.wraps(view)
        async def wrapper(request, *args, **kwargs):
            if (kept := await ask(request)) is not None:
                return kept
            return await keep(request, await view(request, *args, **kwargs))

        return wrapper

    return decorate
