"""How often does a request change threads? Django's own handler is run with a list of middleware of ours, on
an event loop that counts, in a thread of its own: nothing is counted but this one request.
"""

import asyncio
import contextvars
import types

from django.conf import settings
from django.core.handlers import base
from django.core.handlers.asgi import ASGIHandler

SECONDS = 10
SYNC_ONLY = "lab.middleware.sync_only"
STACKS = {
    "no middleware": lambda: [],
    "one in sync and async": lambda: ["lab.middleware.both"],
    "one of MiddlewareMixin": lambda: ["lab.middleware.Mixin"],
    "one sync-only": lambda: [SYNC_ONLY],
    "this site's": lambda: list(settings.MIDDLEWARE),
    "this site's, a sync-only one outside": lambda: [SYNC_ONLY, *settings.MIDDLEWARE],
    "this site's, a sync-only one inside": lambda: [*settings.MIDDLEWARE, SYNC_ONLY],
}


def name(function):
    """What asgiref hands to a thread ends in a partial of the function that was meant."""
    while args := getattr(function, "args", None):
        if not callable(args[-1]):
            break
        function = args[-1]
    function = getattr(function, "func", function)
    function = getattr(function, "__wrapped__", function)
    return getattr(function, "__qualname__", type(function).__name__)


class CountingLoop(asyncio.SelectorEventLoop):
    """Threads and an event loop meet in two places alone: work goes out, and coroutines come in."""

    def __init__(self):
        super().__init__()
        self.hops = []

    def run_in_executor(self, executor, function, *args):
        self.hops.append({"to": "thread", "what": name(function)})
        return super().run_in_executor(executor, function, *args)

    def call_soon_threadsafe(self, callback, *args, context=None):
        # Of what threads send, the end of a call is the way back of a hop that is counted; a task is new.
        if callback == self.create_task:
            self.hops.append({"to": "event loop", "what": "async_to_sync"})
        return super().call_soon_threadsafe(callback, *args, context=context)


class Stack(ASGIHandler):
    def __init__(self, middleware):
        self.middleware = middleware
        super().__init__()

    def load_middleware(self, is_async=False):
        # Django's own code. It reads the list from a global, which the requests of others read meanwhile, so
        # that it is given other globals.
        ours = types.SimpleNamespace(MIDDLEWARE=self.middleware, DEBUG=False)
        code = base.BaseHandler.load_middleware.__code__
        types.FunctionType(code, vars(base) | {"settings": ours})(self, is_async)


async def one_request(stack, path, host, scheme):
    sent = []
    received = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if received:
            return received.pop()
        return await asyncio.get_running_loop().create_future()  # a client that stays

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }
    async with asyncio.timeout(SECONDS):
        await stack(scope, receive, send)
    return sent[0]["status"]


def counted(middleware, path, host, scheme):
    stack = Stack(middleware)
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        status = runner.run(one_request(stack, path, host, scheme))
        hops = list(runner.get_loop().hops)
    # A hop back into the event loop leaves its thread behind, waiting, until the view has answered.
    held = any(hop["to"] == "event loop" for hop in hops)
    return {"status": status, "middleware": middleware, "hops": hops, "count": len(hops), "held": held}


async def count(middleware, path, host, scheme="https"):
    # In a context without the outer request's thread, in which the inner one's calls would land.
    empty = contextvars.Context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, empty.run, counted, middleware, path, host, scheme)
