"""Counts how often code that agents patch is called, for each of agentsite.py's requests below.

    PERGOLA_HANDLER=lean python patch_points.py

A process for each point and style patches that point alone, before it makes the application, as agents do.
One JSON object on stdout: by style and point the counts of each request.
"""

import asyncio
import functools
import importlib
import json
import os
import sys

# how agents patch; and one that patches when our handler is imported already, as after get_asgi_application()
STYLES = ("function", "wrapt", "wrapt-imported")
REQUESTS = (
    "plain", "queries", "sync_queries", "cursors", "stream", "sync_stream", "fails", "nowhere", "signals",
    "sync_signals", "below-synchronous/queries",
)  # fmt: skip

# not ASGIHandler.handle: the runtime's class has its own, and __call__ is what calls it
POINTS = [
    "django.core.asgi:get_asgi_application",
    "django.core.handlers.asgi:ASGIHandler.__call__",
    "django.core.handlers.asgi:ASGIHandler.create_request",
    "django.core.handlers.asgi:ASGIHandler.listen_for_disconnect",
    "django.core.handlers.asgi:ASGIHandler.read_body",
    "django.core.handlers.asgi:ASGIHandler.run_get_response",
    "django.core.handlers.asgi:ASGIHandler.send_response",
    "django.core.handlers.asgi:ASGIRequest.close",
    "django.core.handlers.base:BaseHandler._get_response_async",
    "django.core.handlers.base:BaseHandler.check_response",
    "django.core.handlers.base:BaseHandler.get_response_async",
    "django.core.handlers.base:BaseHandler.load_middleware",
    "django.core.handlers.base:BaseHandler.make_view_atomic",
    "django.core.handlers.base:BaseHandler.process_exception_by_middleware",
    "django.core.handlers.base:BaseHandler.resolve_request",
    "django.core.handlers.base:import_string",
    "django.core.handlers.exception:response_for_exception",
    "django.db.backends.base.base:BaseDatabaseWrapper.connect",
    "django.db.backends.base.base:BaseDatabaseWrapper.cursor",
    "django.db.backends.utils:CursorWrapper.execute",
    "django.db.backends.utils:CursorWrapper.executemany",
    "django.db.models.query:QuerySet._fetch_all",
    "django.db.models.sql.compiler:SQLCompiler.execute_sql",
    "django.dispatch:Signal._live_receivers",
    "django.dispatch:Signal.asend",
    "django.dispatch:Signal.asend_robust",
    "django.dispatch:Signal.send",
    "django.dispatch:Signal.send_robust",
    "django.http.response:HttpResponseBase.close",
    "django.middleware.csrf:CsrfViewMiddleware.process_view",
    "django.middleware.security:SecurityMiddleware.process_request",
    "django.middleware.security:SecurityMiddleware.process_response",
    "django.urls.resolvers:URLResolver.resolve",
    "django.utils.deprecation:MiddlewareMixin.__acall__",
    "django.utils.deprecation:MiddlewareMixin.__call__",
    "psycopg:Connection.cursor",
    "psycopg:Cursor.execute",
    "psycopg:connect",
]

# Django's handler passes here more often, with calls that need no thread under the runtime's. A view's calls
# are as many under both: the difference between two views.
WAYS = [
    "asgiref.sync:SyncToAsync.__call__",
    "asgiref.sync:SyncToAsync.thread_handler",
]


def patch(point, style, counted):
    module, _, path = point.partition(":")
    owner = importlib.import_module(module)
    *owners, name = path.split(".")
    for one in owners:
        owner = getattr(owner, one)

    if style.startswith("wrapt"):
        import wrapt

        def wrapper(wrapped, instance, args, kwargs):
            counted.append(point)
            return wrapped(*args, **kwargs)

        wrapt.wrap_function_wrapper(module, path, wrapper)
        return
    function = getattr(owner, name)

    @functools.wraps(function)
    def patched(*args, **kwargs):
        counted.append(point)
        return function(*args, **kwargs)

    setattr(owner, name, patched)


def count(point, style):
    from asgi_client import Client

    counted = []
    if style.endswith("-imported"):
        importlib.import_module("pergola_runtime.lean")
    patch(point, style, counted)
    import agentsite

    client = Client(agentsite.get_application())
    counts = {"the start": len(counted)}

    async def ask():
        for name in REQUESTS:
            counted.clear()
            await client.request("GET", f"/{name}")
            await asyncio.sleep(0)  # for what is still to be called
            counts[name] = len(counted)

    asyncio.run(ask())
    return counts


def count_in_process(point, style):
    """In a process of its own, which shares what is imported."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            result = count(point, style)
        except BaseException as error:
            result = repr(error)
        with os.fdopen(write, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        result = json.load(pipe)
    os.waitpid(child, 0)
    return result


def main():
    import agentsite  # noqa: F401 - so that each process need not
    import django
    import wrapt  # noqa: F401

    django.setup()
    points = POINTS + WAYS
    counts = {style: {point: count_in_process(point, style) for point in points} for style in STYLES}
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main()
