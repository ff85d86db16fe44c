"""Django's ASGI handler with threads that serve one request after another.

It does for a request what Django's handler does, in the same order. Synchronous code runs on a thread of the
worker process (threads.py) instead of a new one, and a request that has none takes no thread. choice.py
decides whether this handler serves, or Django's.
"""

import asyncio
import gc
import os
import weakref
from contextlib import asynccontextmanager, closing
from contextvars import copy_context
from types import MethodType

import django
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.conf import LazySettings, settings
from django.core import signals
from django.core.cache import BaseCache, InvalidCacheBackendError, caches, close_caches
from django.core.exceptions import ImproperlyConfigured, RequestAborted
from django.core.handlers import asgi as handlers
from django.core.handlers import base
from django.db import close_old_connections, connections, reset_queries
from django.dispatch import Signal, dispatcher
from django.http import HttpResponseBase
from django.http import response as responses
from django.urls import include, set_script_prefix, set_urlconf

from pergola_runtime import choice, threads
from pergola_runtime.middleware import break_cycles, in_place

# Seconds before watching for a client's disconnect. Watching costs as much as serving a short response, and
# most requests are answered earlier.
LISTEN_AFTER = 0.2

# Django's own receivers of request_started and request_finished. They act on the connections of the thread
# that they run in; threads.py does their work in the thread that has the request's connections.
AT_REST = {reset_queries, close_old_connections, close_caches, base.reset_urlconf}


class RequestContext(ThreadSensitiveContext):
    """A request's context for asgiref; a task that outlives the request can still call synchronous code."""

    def __init__(self, executor):
        super().__init__(executor=executor)
        executor.context = weakref.ref(self)

    async def __aexit__(self, *exception):
        await super().__aexit__(*exception)
        self._exited = False
        SyncToAsync.context_to_thread_executor[self] = self._executor


class LeanHandler(handlers.ASGIHandler):
    # monitoring agents name a transaction that reached no view after the handler's class
    __module__, __qualname__ = handlers.ASGIHandler.__module__, handlers.ASGIHandler.__qualname__

    def __init__(self):
        self.pool = threads.open_pool()
        self.end = None
        self.quiet = {}  # signal: its receivers, when all of them were Django's
        # the sender of signals: projects connect receivers with sender=ASGIHandler
        self.sender = handlers.ASGIHandler if type(self) is LeanHandler else type(self)
        self.caches_close = copy_context().run(caches_close)
        super().__init__()

    def load_middleware(self, is_async=False):
        """Django's, with subclasses of ours for Django's own middleware.

        An agent's import_string() still imports.
        """
        imports = base.import_string  # Django uses it here for middleware alone
        base.import_string = in_place(imports)
        try:
            super().load_middleware(is_async)
        finally:
            base.import_string = imports

    async def handle(self, scope, receive, send):
        if getattr(AsyncToSync.executors, "current", None) is not None:
            # called by synchronous code, of another request or of a test: stay in its thread and transaction
            await super().handle(scope, receive, send)
            return
        if self.end is None:
            self.end = self.pool.until_the_loop_ends()
            await anext(self.end)
        with closing(threads.Calls(self.pool)) as calls:
            async with RequestContext(calls):
                await self.serve(scope, receive, send, calls)

    async def serve(self, scope, receive, send, calls):
        """Do what ASGIHandler.handle() does."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with closing(body):
            set_script_prefix(handlers.get_script_prefix(scope))
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
            except BaseException as error:
                # its middleware may not have removed from the thread what it put there
                calls.alone = True
                if not isinstance(error, asyncio.CancelledError):
                    raise
                # a cancelled call leaves its thread's executor in this context
                AsyncToSync.executors.current = None
                if not disconnect.cancelled:
                    raise  # cancelled by something else than the client's disconnect
            finally:
                disconnect.stop()
            if response is not None:
                await self.close(response, request, calls)
            elif (
                (calls.worker and calls.calls)
                or not self.at_rest(signals.request_finished)
                or self.has_open_caches()
            ):
                # queued after the calls that still run in the request's thread, which may read the body
                await signals.request_finished.asend(sender=self.sender)
            break_cycles(request)

    def at_rest(self, signal):
        """Whether all receivers of this signal are Django's own, and no agent has patched what sends it."""
        sent_by = Signal.asend, Signal.send, Signal._live_receivers
        if not all(threads.is_defined_in(dispatcher, function) for function in sent_by):
            return False
        if (listed := [*signal.receivers]) != self.quiet.get(signal):
            synchronous, asynchronous = signal._live_receivers(self.sender)
            if asynchronous or not AT_REST.issuperset(synchronous):
                return False
            self.quiet[signal] = listed
        return True

    def has_open_caches(self):
        """Whether the request used caches of which one has something to close."""
        return self.caches_close and any(caches.all(initialized_only=True))

    async def close(self, response, request, calls):
        """Close the response: without a thread where there is nothing to close besides the request."""
        if (
            not calls.calls  # a call that still runs in the request's thread may read the body
            and response._resource_closers == [request.close]
            and type(response.close) is MethodType
            and response.close.__func__ is HttpResponseBase.close
            and threads.is_defined_in(responses, HttpResponseBase.close)
            and getattr(request.close, "__func__", None) is handlers.ASGIRequest.close
            and not getattr(request, "_files", None)
            and not getattr(request._stream, "_rolled", False)
            and self.at_rest(signals.request_finished)
            and not self.has_open_caches()
        ):
            # What response.close() does, except for the signal: of Django's own receivers one has work here.
            request.close()
            response._resource_closers.clear()
            response.closed = True
            set_urlconf(None)
        else:
            await sync_to_async(response.close)()


def caches_close():
    """Whether any cache has something to close.

    Call it in a context of its own, or requests inherit the caches.
    """
    try:
        return any(type(cache).close is not BaseCache.close for cache in caches.all())
    except InvalidCacheBackendError:  # of a cache that the project never uses
        return True


def is_uvicorns(receive):
    """Whether `receive` is the server's own. An agent's reports each call of it."""
    return type(receive) is MethodType and type(receive.__self__).__module__.startswith("uvicorn.")


class Disconnect:
    """Cancels the task of a request whose client disconnects."""

    def __init__(self, listen, receive):
        self.listen = listen
        self.receive = receive
        self.request = asyncio.current_task()
        self.cancelled = self.error = self.listener = None
        self.loop = asyncio.get_running_loop()
        self.soon = None
        if is_uvicorns(receive):
            self.soon = self.loop.call_later(LISTEN_AFTER, self.start)
        else:  # an agent reports each call of it, and Django calls it at once
            self.start()

    def start(self):
        self.listener = asyncio.ensure_future(self.run())

    async def run(self):
        try:
            await self.listen(self.receive)
        except Exception as error:
            self.error = None if isinstance(error, RequestAborted) else error
        self.cancelled = bool(self.request and self.request.cancel())

    def stop(self):
        if self.soon is not None:
            self.soon.cancel()
        request, listener = self.request, self.listener
        # or this object and the task would be a reference cycle
        self.soon = self.request = self.listener = None
        if self.cancelled:
            request.uncancel()
            if self.error:
                raise self.error
        elif listener is not None and django.VERSION < (6, 1):
            # As in Django before 6.1: the server's receive() returns first, which an agent reports.
            self.loop.call_soon(listener.cancel)
        elif listener is not None:
            listener.cancel()


@asynccontextmanager
async def consumer_context():
    """A WebSocket consumer's context. It holds a thread of its own to the end of the socket."""
    pool = threads.open_pool()
    pool.sockets = True
    with closing(threads.Calls(pool, alone=True)) as calls:
        async with RequestContext(calls):
            yield


def keep_connections(environ=os.environ):
    """Set the age of kept connections.

    Not in the project's settings: in Celery nothing closes idle connections.
    """
    age = environ.get("PERGOLA_CONN_MAX_AGE") or "0"
    if not age.isdecimal() or int(age) > choice.MAX_AGE:
        raise ImproperlyConfigured(
            f"PERGOLA_CONN_MAX_AGE={age} is not a whole number from 0 to {choice.MAX_AGE}: "
            "set app_conn_max_age"
        )
    default = connections.settings.get("default", {})
    if not default.get("CONN_MAX_AGE") and not default.get("OPTIONS", {}).get("pool"):
        default["CONN_MAX_AGE"] = int(age)


def open_handler():
    """Make the handler, and prepare the process for it."""
    handler = LeanHandler()
    keep_connections()
    include(settings.ROOT_URLCONF)  # or the first request loads all views, and the others wait for it
    # A request reads some fifty settings, each through a method that looks for names that LazySettings does
    # not have.
    LazySettings.__getattribute__ = object.__getattribute__
    # What is loaded by now stays: the garbage collector need not look at it again. Nor at the objects of
    # requests in progress so often: 200 fan-outs at once took a fourteenth less. (!) No larger number: what
    # projects put on a request may be a reference cycle, and some 400 requests wait for the collector, with
    # their bodies.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    return handler
