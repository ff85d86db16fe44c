"""The threads of a worker process, and with them its database connections.

Django's ASGI handler gives each request a thread of its own for its synchronous code, and ends the thread and
its connections with the request. Here threads live as long as the process and serve one request after another,
as under WSGI. From its first synchronous call until it has ended, with its stream and the last of its calls, a
request has one thread to itself: what it puts into a `threading.local`, onto the connection or into its session
is its own. Then the thread is given back, without an open transaction, and without a connection whose session
was altered (sessions.py).

Threads that compute fight for the interpreter, so few run at a time: PERGOLA_THREADS calls have a slot. A
request that holds a thread goes on at once. Others wait for a slot in the order of asking, while the event loop
runs on. Code that waits (for another server, a lock, the event loop) gives its slot up after a few milliseconds,
as a scheduler hands off a thread that is blocked, so that it holds up nobody.
"""

import asyncio
import contextlib
import ctypes
import functools
import os
import queue
import select
import struct
import threading
import time
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context

from asgiref import sync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import query

from pergola_runtime import sessions

MAX_AGE = 10  # seconds for which a connection is kept; PgBouncer, told to stop, waits for all of them to go
# calls at once in one process, unless PERGOLA_THREADS says otherwise; more of them fight for the interpreter:
# asked by 64 at once for twenty rows, 8 took a tenth more processor time than 3
LIMIT = 3
# Threads of one process, most of which wait: 70 kB each. Django's handler has no bound.
MOST = 2000
# Seconds for which a request that called keeps its slot; most end in less, and the same few threads do: without,
# a row by a `def` view took a quarter more.
GRACE = 0.005
# Seconds after which a call that has not used the processor is taken to wait, where others want its slot; and
# where the process computes all the time, so that who wants to compute waits for the interpreter as well.
HANDOFF = 0.005
HANDOFF_BUSY = 0.025
# Seconds after which a request that holds its thread between two calls, as a stream does, has its connection
# closed, if its session was not altered: the next call opens one just like it.
REST = 2
IDLE = 0  # libpq's PQTRANS_IDLE: no transaction

NAMES = "_fetch_all aggregate contains count earliest exists explain first get in_bulk last latest"
READING = {getattr(query.QuerySet, name) for name in NAMES.split()}

# not Python's: with a time limit of 0 it is no reason to give the interpreter away, and to wait for it again
poll = ctypes.PyDLL(None).poll


class Own(threading.local):
    request = None  # whose call this thread runs


own = Own()


def limit(environ=os.environ):
    text = environ.get("PERGOLA_THREADS") or str(LIMIT)
    if not text.isdecimal() or int(text) < 1:
        raise ImproperlyConfigured(f"PERGOLA_THREADS={text} is no whole number from 1 on: set app_threads")
    return int(text)


class Worker:
    """One thread, of one request at a time."""

    def __init__(self, pool):
        self.pool = pool
        self.queue = queue.SimpleQueue()
        self.held = False  # by a request
        self.unclean = False  # something is to be done before the thread is given back
        self.connections = []  # the open ones, as Django's wrappers
        self.used = 0.0  # when its last call ended
        self.thread = threading.Thread(target=self.run, name=f"pergola-{pool.size}", daemon=True)
        self.thread.start()
        self.clock = time.pthread_getcpuclockid(self.thread.ident)

    def run(self):
        while call := self.next():
            request, future, function, args, kwargs = call
            own.request = request
            how = outcome = None
            if not future.cancelled():
                self.begin(request)
                try:
                    outcome = function(*args, **kwargs)
                    how = future.set_result
                except BaseException as error:
                    outcome = error
                    how = future.set_exception
            # before the caller hears of it, or both want the interpreter at once
            self.ended(request)
            loop = future.get_loop()
            if loop is not request.loop:  # one of the request's own making, which may end before any timer
                request.rests()
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(settle, request, future, how, outcome)
            # what came out is the caller's alone
            own.request = outcome = how = call = request = future = function = args = kwargs = loop = None
        self.close_connections(self.connections)

    def next(self):
        while True:
            try:
                return self.queue.get(timeout=self.patience())
            except queue.Empty:
                self.close_connections([one for one in self.connections if self.spare(one)])

    def patience(self):
        """Seconds until a connection may be spare, while this thread waits for its next call."""
        now = time.monotonic()
        if self.held:
            times = [self.used + REST - now] if any(map(untouched, self.connections)) else []
        else:
            times = [one.close_at - now for one in self.connections if one.close_at is not None]
        return max(min(times), 0.05) if times else None

    def spare(self, connection):
        if self.held:
            return time.monotonic() >= self.used + REST and untouched(connection)
        return obsolete(connection)

    def begin(self, request):
        """Before a call. At a request's first, what Django does at its start: what is too old is not used."""
        if not request.begun:
            request.begun = True
            self.close_connections([one for one in self.connections if hung_up(one) or obsolete(one)])
            for one in self.connections:
                one.health_check_done = False
        request.began = time.monotonic()
        request.used = time.thread_time()

    def ended(self, request):
        pool = self.pool
        for one in connections.all(initialized_only=True):
            if one.connection is not None and one not in self.connections:
                one.close_at = 0.0  # connect() broke off behind the login: for nobody but this request
                self.connections.append(one)
        unclean = any(map(needs_cleaning, self.connections))
        self.used = time.monotonic()
        with pool.lock:
            request.began = None
            self.unclean = unclean
            leaves = request.over and request.calls == 1
            if not leaves or not unclean:
                pool.done(request, leaves)
                return
        self.clean()
        with pool.lock:  # another call of its may have come meanwhile
            pool.done(request, request.calls == 1)

    def clean(self):
        for one in self.connections:
            one.queries_log.clear()
            if transaction_is_open(one):
                with contextlib.suppress(Exception):
                    one.connection.rollback()
                self.close_connections([one])
            elif sessions.altered(one):
                self.close_connections([one])
            else:
                with contextlib.suppress(Exception):
                    one.close_if_unusable_or_obsolete()
        self.unclean = False
        self.connections = [one for one in self.connections if one.connection is not None]

    def close_connections(self, connections):
        for one in connections:
            close(one)
        self.connections = [one for one in self.connections if one.connection is not None]


class Calls(Executor):
    """The executor of one request. It holds no thread until the first call."""

    def __init__(self, pool, over=False):
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.worker = self.waits = None  # waits: the calls that wait for a thread
        self.calls = self.asleep = 0  # asleep: 1 while its thread waits for the loop, within async_to_sync()
        self.begun = False  # its thread has had a call of its
        self.has_slot = False
        self.over = over  # gives the thread back after each call
        self.since = 0.0  # when it began to wait for a thread
        self.began = None  # when its running call began, and the thread's processor time at that moment
        self.used = 0.0

    def submit(self, function, /, *args, **kwargs):
        # (!) asyncio's own and not an Executor's, which costs as much as all the rest of a call: nothing but
        # read() and loop.run_in_executor() call this, and it takes both
        future = asyncio.get_running_loop().create_future()
        call = (self, future, function, args, kwargs)
        pool = self.pool
        with pool.lock:
            if self.waits is not None:
                self.waits.append(call)
            elif self.worker is not None or pool.enter(self):
                self.take_slot()
                self.worker.queue.put(call)
            else:
                self.waits = [call]
                self.since = time.monotonic()
                pool.waiting.append(self)
                pool.watch_from(self.loop)
            self.calls += 1
        return future

    def take_slot(self):
        if self.asleep <= 0 and not self.has_slot:
            self.has_slot = True
            self.pool.running.add(self)

    def give_slot(self):
        if self.has_slot:
            self.has_slot = False
            self.pool.running.discard(self)
            self.pool.serve()

    def rests(self):
        """Others may be let in, unless it has called again."""
        with self.pool.lock:
            if self.asleep > 0 or not self.calls:
                self.give_slot()

    def sleeps(self, more):
        """Its thread begins to wait for the event loop (1), or has something to do (-1)."""
        with self.pool.lock:
            self.asleep += more
            if more < 0 and self.worker is not None:
                self.take_slot()
        if more > 0:
            with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                self.loop.call_soon_threadsafe(self.loop.call_later, GRACE, self.rests)

    def waits_for_something(self, now, patience):
        """Whether its call runs for so long and used next to nothing of the processor."""
        if self.began is None or now - self.began < patience:
            return False
        try:
            used = time.clock_gettime(self.worker.clock) - self.used
        except OSError:  # the thread has ended
            return True
        return used < (now - self.began) / 10

    def close(self):
        """The request has ended. What it still runs is waited for, by the thread and not by the caller."""
        self.over = True
        with self.pool.lock:
            worker = self.worker
            if worker is None or self.calls:
                return  # nothing is held; or the last call gives it back
            if not worker.unclean:
                self.pool.given_back(self)
                return
        self.submit(lambda: None)


def sync_to_async(function, **options):
    """In place of asgiref's in Django's async ORM: a read is called in half the time."""
    if getattr(function, "__func__", function) in READING:
        return lambda *args, **kwargs: read(function, args, kwargs)
    return sync.sync_to_async(function, **options)


async def read(function, args, kwargs):
    """What asgiref does, but for what no read needs: the exception its caller handles, tasks of its own."""
    calls = getattr(sync.SyncToAsync.thread_sensitive_context.get(None), "_executor", None)
    if not isinstance(calls, Calls) or getattr(sync.AsyncToSync.executors, "current", None):
        return await sync.sync_to_async(function)(*args, **kwargs)
    context, loop = copy_context(), asyncio.get_running_loop()
    try:
        return await calls.submit(run_reading, loop, context, function, args, kwargs)
    finally:
        sync._restore_context(context)


def run_reading(loop, context, function, args, kwargs):
    local = sync.SyncToAsync.threadlocal  # for async_to_sync(), within a field's from_db_value()
    local.main_event_loop, local.main_event_loop_pid, local.task_context = loop, os.getpid(), None
    context.run(sync._restore_context, context)
    return context.run(function, *args, **kwargs)


def settle(request, future, how, outcome):
    if request.has_slot and future.get_loop() is request.loop:
        request.loop.call_later(GRACE, request.rests)
    if how is not None and not future.cancelled():
        how(outcome)


class Bridge(sync.CurrentThreadExecutor):
    """In which a thread waits within async_to_sync(), and does what comes from the event loop meanwhile."""

    def __init__(self, *outer):
        super().__init__(*outer)
        self.sleeps = own.request.sleeps if own.request else lambda more: None

    def run_until_future(self, future):
        self.sleeps(1)
        try:
            super().run_until_future(future)
        finally:
            self.sleeps(-1)

    def submit(self, function, /, *args, **kwargs):
        self.sleeps(-1)
        try:
            future = super().submit(function, *args, **kwargs)
        except RuntimeError:  # nobody waits any more
            self.sleeps(1)
            raise
        future.add_done_callback(lambda _: self.sleeps(1))
        return future


class ClosingExecutor(ThreadPoolExecutor):
    """An event loop's default executor, for asyncio.to_thread() and sync_to_async(thread_sensitive=False).

    No request ends on its threads, so nothing of Django closes their connections: here each call does.
    """

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


def close(connection):
    # within a transaction Django's close() keeps the dead connection, for its end to be noticed
    connection.in_atomic_block = connection.closed_in_transaction = False
    with contextlib.suppress(Exception):
        connection.close()


class Pool:
    def __init__(self, limit):
        self.limit = limit
        self.lock = threading.Lock()
        self.size = self.taken = 0
        self.running = set()  # the requests that have a slot: a call runs, or has ended just now
        self.free = []  # the last used is the first taken, so that the others' connections grow old
        self.waiting = deque()
        self.waited = 0.0
        self.watching = None  # the event loop that looks for calls that wait, while requests want their slots
        self.looked = (0.0, 0.0)  # the time and the process's processor time at the last look

    async def until_the_loop_ends(self):
        """The server closes what is left of its async generators before its loop ends."""
        try:
            yield
        finally:
            with self.lock:
                ended, self.free = self.free, []
                self.size -= len(ended)
            for worker in ended:
                worker.queue.put(None)
            for worker in ended:
                worker.thread.join(1)

    def hand_off(self):
        """Give the slots of calls that wait for something to requests that wait for a slot."""
        now, used = time.monotonic(), time.process_time()
        with self.lock:
            busy = used - self.looked[1] > 0.7 * (now - self.looked[0])
            self.looked = now, used
            patience = HANDOFF_BUSY if busy else HANDOFF
            for request in [one for one in self.running if one.waits_for_something(now, patience)]:
                request.give_slot()
            loop, self.watching = self.watching, None
            if self.waiting:
                self.watch_from(loop)

    # All of these with the lock held.

    def watch_from(self, loop):
        """Look after a while; one look at a time is under way."""
        if self.watching is None or self.watching.is_closed():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(loop.call_later, HANDOFF, self.hand_off)
                self.watching = loop

    def enter(self, calls):
        """Whether it has a thread now."""
        if len(self.running) >= self.limit or not (self.free or self.size < MOST):
            return False
        if not self.free:
            self.free.append(Worker(self))  # which may fail, for want of memory
            self.size += 1
        calls.worker = self.free.pop()
        calls.worker.held = True
        calls.take_slot()
        self.taken += 1
        return True

    def done(self, calls, leaves):
        calls.calls -= 1
        if leaves:
            self.given_back(calls)

    def given_back(self, calls):
        calls.worker.held = False
        self.free.append(calls.worker)
        calls.worker, calls.begun = None, False
        if calls.has_slot:
            calls.give_slot()
        else:
            self.serve()

    def serve(self):
        """Lets in who waits, as many as may."""
        with contextlib.suppress(RuntimeError):  # no thread can be started: who waits has one given back
            while self.waiting and self.enter(self.waiting[0]):
                calls = self.waiting.popleft()
                self.waited += time.monotonic() - calls.since
                for call in calls.waits:
                    calls.worker.queue.put(call)
                calls.waits = None


def obsolete(connection):
    return connection.close_at is not None and time.monotonic() >= connection.close_at


def untouched(connection):
    """Whether nobody would notice that it was closed between two calls of a request."""
    return not (transaction_is_open(connection) or sessions.altered(connection))


def needs_cleaning(connection):
    return (
        connection.errors_occurred
        or connection.queries_log
        or obsolete(connection)
        or sessions.altered(connection)
        or transaction_is_open(connection)
    )


def hung_up(connection):
    """Whether the server has said something unasked, which is that it has gone. No round trip."""
    # an error is no socket: another database, or closed, which Django finds by itself
    with contextlib.suppress(Exception):
        return readable(connection.connection.fileno())
    return False


def readable(socket):
    return bool(poll(ctypes.create_string_buffer(struct.pack("ihh", socket, select.POLLIN, 0)), 1, 0))


def transaction_is_open(connection):
    if connection.connection is None:
        return False
    if connection.in_atomic_block or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return True
    # one that was begun by SQL, past Django
    driver = getattr(connection.connection, "pgconn", None) or getattr(connection.connection, "info", None)
    return getattr(driver, "transaction_status", IDLE) != IDLE


def follow_connections():
    """Remember the connections of each thread; not by Django's signal, whose receivers agents report."""
    connect = BaseDatabaseWrapper.connect

    @functools.wraps(connect)
    def connect_and_remember(connection):
        connect(connection)
        if own.request and connection not in own.request.worker.connections:
            sessions.watch(connection)
            own.request.worker.connections.append(connection)

    BaseDatabaseWrapper.connect = connect_and_remember


pool = None


def open_pool():
    """The process's one pool, made at the first asking."""
    global pool
    if pool is None:
        pool = Pool(limit())
        follow_connections()
        sync.CurrentThreadExecutor = Bridge
        query.sync_to_async = sync_to_async
    return pool


def statistics():
    """Seconds and counts since the start. `busy` threads are held by a request, `running` ones at work."""
    found = pool or Pool(limit())
    counted = {name: getattr(found, name) for name in ("size", "limit", "taken")}
    counted["running"] = len(found.running)
    busy, waiting = found.size - len(found.free), len(found.waiting)
    return counted | {"busy": busy, "waiting": waiting, "waited_seconds": found.waited}
