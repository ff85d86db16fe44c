"""Django's ASGI handler, without what it spends on being async.

    from pergola_runtime.handler import get_asgi_application

What it does for a request is what Django does, in the same order; how it gets to a thread is different: only
where synchronous code really runs, and to one of the worker's own (threads.py). PERGOLA_HANDLER=django in the
environment gives Django's own handler back.
"""

import asyncio
import contextlib
import gc
import logging
import os
import re
from contextlib import closing
from contextvars import copy_context
from importlib.metadata import PackageNotFoundError, version

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.conf import LazySettings, settings
from django.core import asgi, signals
from django.core.cache import BaseCache, InvalidCacheBackendError, caches, close_caches
from django.core.exceptions import ImproperlyConfigured, RequestAborted
from django.core.handlers import asgi as handlers
from django.core.handlers import base
from django.db import close_old_connections, connections, reset_queries
from django.dispatch import Signal, dispatcher
from django.http import HttpResponseBase
from django.http import response as responses
from django.urls import include, set_script_prefix, set_urlconf

from pergola_runtime import threads
from pergola_runtime.middleware import in_place, let_go

# seconds; to listen costs as much as a short answer, and what is nearly answered needs no cancelling
LISTEN_AFTER = 0.2

# The versions that the tests run with: this one or newer, and older than that one.
TESTED = {
    "Django": ((5, 2), (6, 2)),
    "asgiref": ((3, 13), (3, 14)),
    "psycopg": ((3, 2), (3, 4)),
    "uvicorn": ((0, 51), (0, 55)),
    "channels": ((4, 2), (4, 4)),
}

# Django's own receivers at both ends of a request. They look at the connections of the thread they run in;
# threads.py does their work in the thread that has some.
AT_REST = {reset_queries, close_old_connections, close_caches, base.reset_urlconf}


class RequestContext(ThreadSensitiveContext):
    """Lets a task that outlives its request go on calling, as Django does: a thread for each call."""

    async def __aexit__(self, *exception):
        await super().__aexit__(*exception)
        self._exited = False
        SyncToAsync.context_to_thread_executor[self] = self._executor


class LeanHandler(handlers.ASGIHandler):
    def __init__(self):
        self.pool = threads.open_pool()
        self.end = None
        self.quiet = {}  # the receivers of a signal, when nobody but Django was among them
        # the signals'; receivers may have named Django's
        self.sender = handlers.ASGIHandler if type(self) is LeanHandler else type(self)
        self.caches_close = copy_context().run(caches_close)
        super().__init__()

    def load_middleware(self, is_async=False):
        """Django's, with its own middleware in place; an agent's import_string() stays the one that imports."""
        imports = base.import_string  # by which Django loads middleware, and nothing else
        base.import_string = in_place(imports)
        try:
            super().load_middleware(is_async)
        finally:
            base.import_string = imports

    async def handle(self, scope, receive, send):
        if getattr(AsyncToSync.executors, "current", None) is not None:
            # asked by synchronous code, another request's or a test's: in its thread and its transaction
            await super().handle(scope, receive, send)
            return
        if self.end is None:
            asyncio.get_running_loop().set_default_executor(threads.ClosingExecutor())
            self.end = self.pool.until_the_loop_ends()
            await anext(self.end)
        with closing(threads.Calls(self.pool)) as calls:
            async with RequestContext(executor=calls):
                await self.serve(scope, receive, send, calls)

    async def serve(self, scope, receive, send, calls):
        """What ASGIHandler.handle() does."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with closing(body):
            set_script_prefix(handlers.get_script_prefix(scope))  # not there before Django 5
            if not self.at_rest(signals.request_started):
                await signals.request_started.asend(sender=self.sender, scope=scope)
            request, response = self.create_request(scope, body)
            if request is None:
                await self.send_response(response, send)
                await sync_to_async(response.close)()
                return
            disconnect = Disconnect(self.listen_for_disconnect, receive)
            try:
                response = await self.run_get_response(request)
                response._handler_class = self.sender
                await self.send_response(response, send)
            except asyncio.CancelledError:
                AsyncToSync.executors.current = None  # a call that was cancelled brought its thread's back
                if not disconnect.cancelled:
                    raise  # somebody else wants this task to end
            finally:
                disconnect.stop()
            if response is not None:
                await self.close(response, request, calls)
            elif (calls.worker and calls.calls) or not self.at_rest(signals.request_finished):
                # behind what still runs in the request's thread, which may read the body
                await signals.request_finished.asend(sender=self.sender)
            let_go(request)

    def at_rest(self, signal):
        """Whether nobody but Django listens to this signal, and nobody has put another code in its place."""
        if not all(map(is_djangos, (Signal.asend, Signal._live_receivers))):
            return False
        if (listed := [*signal.receivers]) != self.quiet.get(signal):
            synchronous, asynchronous = signal._live_receivers(self.sender)
            if asynchronous or not AT_REST.issuperset(synchronous):
                return False
            self.quiet[signal] = listed
        return True

    async def close(self, response, request, calls):
        """In place where it closes nothing; `request` is among the closers."""
        if (
            not calls.calls  # what still runs in the request's thread may read the body
            and response._resource_closers == [request.close]
            and is_djangos(response.close)
            and getattr(response.close, "__func__", None) is HttpResponseBase.close
            and getattr(request.close, "__func__", None) is handlers.ASGIRequest.close
            and not getattr(request, "_files", None)
            and not getattr(request._stream, "_rolled", False)
            and self.at_rest(signals.request_finished)
            and not (self.caches_close and any(caches.all(initialized_only=True)))
        ):
            # what response.close() does, but for telling Django's own receivers, of which one has work here
            request.close()
            response._resource_closers.clear()
            response.closed = True
            set_urlconf(None)
        else:
            await sync_to_async(response.close)()


def is_djangos(function):
    """Whether it is as Django wrote it, and not what an agent put there, which must run."""
    code = getattr(getattr(function, "__func__", function), "__globals__", {})
    return code.get("__name__") in (dispatcher.__name__, responses.__name__)


def caches_close():
    """Whether one has anything to close. To be asked in a context of its own, or requests inherit them."""
    try:
        return any(type(cache).close is not BaseCache.close for cache in caches.all())
    except InvalidCacheBackendError:  # one that nobody may ask
        return True


def is_uvicorns(receive):
    """Whether nobody has put another one in its place, as agents do, who report each call of it."""
    return type(getattr(receive, "__self__", None)).__module__.startswith("uvicorn.")


class Disconnect:
    """Cancels the task of a request whose client goes. Most have their answer before it begins to listen."""

    def __init__(self, listen, receive):
        self.listen = listen
        self.receive = receive
        self.request = asyncio.current_task()
        self.cancelled = self.error = self.listener = None
        after = LISTEN_AFTER if is_uvicorns(receive) else 0
        self.soon = asyncio.get_running_loop().call_later(after, self.start)

    def start(self):
        self.listener = asyncio.ensure_future(self.run())

    async def run(self):
        try:
            await self.listen(self.receive)
        except Exception as error:
            self.error = None if isinstance(error, RequestAborted) else error
        self.cancelled = bool(self.request and self.request.cancel())

    def stop(self):
        self.soon.cancel()
        request, listener = self.request, self.listener
        self.soon = self.request = self.listener = None  # a circle, which the garbage collector would search
        if self.cancelled:
            request.uncancel()
            if self.error:
                raise self.error
        elif listener is not None:
            listener.cancel()


def consumers(application):
    """A WebSocket's calls, each in a thread for its own time: as it is, one thread serves a whole process."""
    ours = not untested()

    async def serve(scope, receive, send):
        if scope["type"] == "http":
            await application(scope, receive, send)
        elif ours:
            async with RequestContext(executor=threads.Calls(threads.open_pool(), over=True)):
                await application(scope, receive, send)
        else:
            async with ThreadSensitiveContext():
                await application(scope, receive, send)

    return serve


def untested():
    """What of an application's packages is outside of what this handler was tested with; empty if nothing is."""
    for package, (least, below) in TESTED.items():
        with contextlib.suppress(PackageNotFoundError):  # another database than PostgreSQL needs no psycopg
            found = version(package)
            if not least <= tuple(map(int, re.findall(r"\d+", found)[:2])) < below:
                return (
                    f"{package} {found} is not one of the versions {'.'.join(map(str, least))} to below "
                    f"{'.'.join(map(str, below))} that pergola_runtime's handler was tested with"
                )
    return ""


def kept_too_long():
    """The setting of a connection's age that this handler does not honour; empty if there is none."""
    for alias, database in settings.DATABASES.items():
        age = database.get("CONN_MAX_AGE", 0)
        if age is None or age > threads.MAX_AGE:
            return (
                f"DATABASES[{alias!r}]: CONN_MAX_AGE={age} is more than {threads.MAX_AGE} seconds, for which a "
                f"restart of PgBouncer would wait: set {threads.MAX_AGE} or less"
            )
    return ""


def choose(environ=os.environ):
    """Whose handler serves, "lean" or "django", and why it is Django's (or empty).

    Raises ImproperlyConfigured where what is asked for cannot be: when the application is loaded, before a
    release takes traffic.
    """
    asked = environ.get("PERGOLA_HANDLER") or "auto"
    if asked not in ("auto", "lean", "django"):
        raise ImproperlyConfigured(f"PERGOLA_HANDLER={asked} is not auto, lean or django: set app_handler")
    if asked == "django":
        return "django", "app_handler is django"
    threads.limit(environ)
    reason = untested() or kept_too_long()
    if not reason:
        return "lean", ""
    if asked == "lean":
        raise ImproperlyConfigured(f"{reason}; or set app_handler to auto or django")
    return "django", reason


def told(chosen, reason):
    return "pergola_runtime's handler serves" if chosen == "lean" else f"Django's own handler serves: {reason}"


def keep_connections(environ=os.environ):
    """Not in the project's settings, which Celery reads as well: nobody ends idle connections there."""
    age = environ.get("PERGOLA_CONN_MAX_AGE") or "0"
    if not age.isdecimal() or int(age) > threads.MAX_AGE:
        raise ImproperlyConfigured(
            f"PERGOLA_CONN_MAX_AGE={age} is no whole number from 0 to {threads.MAX_AGE}: set app_conn_max_age"
        )
    default = connections.settings.get("default", {})
    if not default.get("CONN_MAX_AGE") and not default.get("OPTIONS", {}).get("pool"):
        default["CONN_MAX_AGE"] = int(age)


def get_asgi_application():
    """Django's function, which agents patch, with our class in the place of Django's."""
    chosen, reason = choose()
    logging.getLogger(__name__).warning("%s", told(chosen, reason))
    if chosen == "django":
        return asgi.get_asgi_application()
    djangos, asgi.ASGIHandler = asgi.ASGIHandler, LeanHandler
    try:
        application = asgi.get_asgi_application()
    finally:
        asgi.ASGIHandler = djangos
    keep_connections()
    include(settings.ROOT_URLCONF)  # or the first request loads all views, and what else runs waits for it
    # a request reads some fifty settings, each through a method that looks for what LazySettings has not
    LazySettings.__getattribute__ = object.__getattribute__
    # What is loaded by now stays: the garbage collector need not look at it again and again. Nor at what is
    # under way so often: 200 fan-outs at once took a fourteenth less. (!) No larger number: what projects
    # put on a request may be a circle, and some 400 requests wait for the collector, with their bodies.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    return application
