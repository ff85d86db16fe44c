"""Django's ASGI handler, without what it spends on being async.

    from pergola_runtime.handler import get_asgi_application

What it does for a request is what Django does, in the same order; how it gets to a thread is different: only
where synchronous code really runs, and to one of the worker's own (threads.py). PERGOLA_HANDLER=django in the
environment gives Django's own handler back.
"""

import asyncio
import gc
import inspect
import logging
import os
from contextlib import closing
from contextvars import copy_context
from importlib.metadata import version

import django
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.conf import LazySettings, settings
from django.core import asgi, signals
from django.core.cache import BaseCache, InvalidCacheBackendError, caches, close_caches
from django.core.exceptions import ImproperlyConfigured, RequestAborted
from django.core.handlers import asgi as handlers
from django.core.handlers import base
from django.db import close_old_connections, connections, reset_queries
from django.http import HttpResponseBase
from django.urls import include, set_script_prefix, set_urlconf
from django.utils.module_loading import import_string

from pergola_runtime import threads
from pergola_runtime.middleware import in_place, let_go

# seconds; to listen costs as much as a short answer, and what is nearly answered needs no cancelling
LISTEN_AFTER = 0.2

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
        base.import_string = in_place  # by which Django loads middleware, and nothing else
        try:
            super().load_middleware(is_async)
        finally:
            base.import_string = import_string

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise ValueError(f"Django can only handle ASGI/HTTP connections, not {scope['type']}.")
        if getattr(AsyncToSync.executors, "current", None) is not None:
            # asked by synchronous code, another request's or a test's: in its thread and its transaction
            async with ThreadSensitiveContext():
                await super().handle(scope, receive, send)
            return
        if self.end is None:
            self.end = self.pool.until_the_loop_ends()
            await anext(self.end)
        with closing(threads.Calls(self.pool)) as calls:
            async with RequestContext(executor=calls):
                await self.handle(scope, receive, send, calls)

    async def handle(self, scope, receive, send, calls):
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
                if response.streaming:
                    calls.lend()
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
        """Whether nobody but Django listens to this signal."""
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


def caches_close():
    """Whether one has anything to close. To be asked in a context of its own, or requests inherit them."""
    try:
        return any(type(cache).close is not BaseCache.close for cache in caches.all())
    except InvalidCacheBackendError:  # one that nobody may ask
        return True


class Disconnect:
    """Cancels the task of a request whose client goes. Most have their answer before it begins to listen."""

    def __init__(self, listen, receive):
        self.listen = listen
        self.receive = receive
        self.request = asyncio.current_task()
        self.cancelled = self.error = self.listener = None
        self.soon = asyncio.get_running_loop().call_later(LISTEN_AFTER, self.start)

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
    theirs = os.environ.get("PERGOLA_HANDLER") == "django" or too_old()

    async def serve(scope, receive, send):
        if scope["type"] == "http" or theirs:
            await application(scope, receive, send)
        else:
            async with RequestContext(executor=threads.Calls(threads.open_pool(), over=True)):
                await application(scope, receive, send)

    return serve


def too_old():
    """What of an application's packages is older than what this handler was proved with."""
    if django.VERSION < (5, 2):
        return f"Django {django.get_version()} is older than 5.2"
    if "executor" not in inspect.signature(ThreadSensitiveContext).parameters:
        return f"asgiref {version('asgiref')} is older than 3.13"
    return None


def check(environ=os.environ):
    """Refuses what cannot work, when the application is loaded: before a release takes traffic."""
    chosen = environ.get("PERGOLA_HANDLER") or "lean"
    if chosen not in ("lean", "django"):
        raise ImproperlyConfigured(f"PERGOLA_HANDLER={chosen} is neither lean nor django: set app_handler")
    if chosen == "lean" and (old := too_old()):
        logging.getLogger(__name__).warning("%s: Django's own handler serves", old)
        return "django"
    if chosen == "lean":
        threads.limit(environ)
        for alias, database in settings.DATABASES.items():
            age = database.get("CONN_MAX_AGE", 0)
            if age is None or age > threads.MAX_AGE:
                raise ImproperlyConfigured(
                    f"DATABASES[{alias!r}]: CONN_MAX_AGE={age} is more than {threads.MAX_AGE} seconds, for "
                    f"which a restart of PgBouncer would wait: set {threads.MAX_AGE} or less"
                )
    return chosen


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
    if check() == "django":
        return asgi.get_asgi_application()
    django.setup(set_prefix=False)
    keep_connections()
    handler = LeanHandler()
    include(settings.ROOT_URLCONF)  # or the first request loads all views, and what else runs waits for it
    # a request reads some fifty settings, each through a method that looks for what LazySettings has not
    LazySettings.__getattribute__ = object.__getattribute__
    # What is loaded by now stays: the garbage collector need not look at it again and again. Nor at what is
    # under way so often: 200 fan-outs at once took a fourteenth less. (!) No larger number: what projects
    # put on a request may be a circle, and some 400 requests wait for the collector, with their bodies.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    return handler
