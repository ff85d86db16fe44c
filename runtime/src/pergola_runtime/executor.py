"""An event loop's default executor, for asyncio.to_thread() and sync_to_async(thread_sensitive=False)."""

from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import connections

from pergola_runtime.database import close


class ClosingExecutor(ThreadPoolExecutor):
    """Closes the connections of each call: no request ends on its threads, so Django never does."""

    def __init__(self):
        super().__init__(thread_name_prefix="asyncio")

    def submit(self, function, /, *args, **kwargs):
        return super().submit(call_and_close, function, *args, **kwargs)


def call_and_close(function, /, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    finally:
        if settings.configured:  # an application need not be Django's
            for connection in connections.all(initialized_only=True):
                close(connection)
