"""The threads of a worker process, and with them its database connections.

asgiref gives each request a new thread for its synchronous code, and ends it with the request: a database
connection cannot outlive it. Here the threads live as long as the process. A request takes one at its first
synchronous call, but for Django's own reading, and keeps it for itself: all of its calls run there, and those
of nobody else. What it says to its connection, or puts into a `threading.local`, is its own. When it and its
last call have ended, it gives it back, without an open transaction.

A request enters only while fewer than PERGOLA_THREADS calls run, and one that has a thread goes on at once.
Others wait their turn, in the order of asking and without holding up the event loop. So the threads that run
are few, and those that are held by a request that waits for something else may be more, up to a bound.
"""

import asyncio
import contextlib
import ctypes
import os
import queue
import select
import struct
import threading
import time
from collections import deque
from concurrent.futures import Executor
from contextvars import copy_context

from asgiref import sync
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models import query

MAX_AGE = 10  # seconds for which a connection is kept; PgBouncer, told to stop, waits for all of them to go
# calls at once in one process, unless PERGOLA_THREADS says otherwise; more of them fight for the interpreter:
# asked by 64 at once for twenty rows, 8 took a tenth more processor time than 3
LIMIT = 3
HELD = 16  # times as many threads may be held, by requests that wait for something else between two calls
# seconds between a request's call and others being let in for it; most requests end in less, and the same few
# threads do: without, a row by a `def` view took a quarter more
GRACE = 0.005
IDLE = 0  # libpq's PQTRANS_IDLE: no transaction

# Django's own reading leaves nothing of the request on a thread: until a request calls something else, it
# takes any thread for each call and holds none between, so that few threads do
NAMES = "_fetch_all aggregate contains count earliest exists first get in_bulk last latest"
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
        # chores: something is to be done before the thread is given back
        self.held = self.in_transaction = self.chores = False
        self.connections = []  # the open ones, as Django's wrappers
        self.thread = threading.Thread(target=self.run, name=f"pergola-{pool.size}", daemon=True)
        self.thread.start()

    def run(self):
        while call := self.next():
            request, future, function, args, kwargs = call
            own.request = request
            how = outcome = None
            if not future.cancelled():
                if not request.begun:
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
                if not self.held:
                    self.close_connections([one for one in self.connections if obsolete(one)])

    def patience(self):
        """Seconds until a connection here is too old, while nobody holds the thread."""
        ages = [one.close_at for one in self.connections if one.close_at is not None]
        return max(min(ages) - time.monotonic(), 1 if self.held else 0.05) if ages else None

    def begin(self, request):
        """What Django does at a request's start: what is too old or was closed by the server is not used."""
        request.begun = True
        self.close_connections([one for one in self.connections if hung_up(one) or obsolete(one)])
        for one in self.connections:
            one.health_check_done = False

    def ended(self, request):
        pool = self.pool
        for one in connections.all(initialized_only=True):
            if one.connection is not None and one not in self.connections:
                one.close_at = 0.0  # connect() broke off behind the login: for nobody but this request
                self.connections.append(one)
        in_transaction = any(map(transaction_is_open, self.connections))
        chores = any(one.errors_occurred or one.queries_log or obsolete(one) for one in self.connections)
        with pool.lock:
            self.in_transaction, self.chores = in_transaction, chores
            lends = request.lends and not in_transaction and (request.streams or not chores)
            leaves = request.calls == 1 and (request.over or lends)
            if not leaves or not (in_transaction or chores):
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
            else:
                with contextlib.suppress(Exception):
                    one.close_if_unusable_or_obsolete()
        self.in_transaction = self.chores = False
        self.connections = [one for one in self.connections if one.connection is not None]

    def close_connections(self, connections):
        for one in connections:
            # within a transaction Django's close() keeps the dead connection, for its end to be noticed
            one.in_atomic_block = one.closed_in_transaction = False
            with contextlib.suppress(Exception):
                one.close()
        self.connections = [one for one in self.connections if one.connection is not None]


class Calls(Executor):
    """The executor of one request. It holds no thread until the first call."""

    def __init__(self, pool, over=False):
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.worker = self.waits = None  # waits: the calls that wait for a thread
        self.calls = self.asleep = 0  # asleep: 1 while its thread waits for the loop, within async_to_sync()
        # streams: lends for good, and whatever it calls, but for an open transaction
        self.begun = self.at_work = self.streams = False
        # gives the thread back after each call that leaves nothing to do there: it has only read, or streams
        self.lends = True
        self.over = over  # gives it back after each call, whatever it leaves
        self.since = 0.0

    def submit(self, function, /, *args, **kwargs):
        # (!) asyncio's own and not an Executor's, which costs as much as all the rest of a call: nothing but
        # read() and loop.run_in_executor() call this, and it takes both
        future = asyncio.get_running_loop().create_future()
        call = (self, future, function, args, kwargs)
        pool = self.pool
        with pool.lock:
            if self.lends and not self.streams and function is not run_reading:
                self.lends = False
            if self.waits is not None:
                self.waits.append(call)
            elif self.worker is not None or pool.enter(self):
                self.works()
                self.worker.queue.put(call)
            else:
                self.waits = [call]
                self.since = time.monotonic()
                pool.waiting.append(self)
            self.calls += 1
        return future

    def works(self):
        if self.asleep <= 0:
            self.pool.running += not self.at_work
            self.at_work = True

    def rests(self):
        """Others may be let in, unless it has called again."""
        with self.pool.lock:
            if self.at_work and (self.asleep > 0 or not self.calls):
                self.at_work = False
                self.pool.running -= 1
                self.pool.serve()

    def sleeps(self, more):
        """Its thread begins to wait for the event loop (1), or has something to do (-1)."""
        with self.pool.lock:
            self.asleep += more
            if more < 0 and self.worker is not None:
                self.works()
        if more > 0:
            with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                self.loop.call_soon_threadsafe(self.loop.call_later, GRACE, self.rests)

    def lend(self):
        """From here on the thread is only held while it is used: a stream waits most of its time."""
        self.lends = self.streams = True
        self.let_go()

    def close(self):
        """The request has ended. What it still runs is waited for, by the thread and not by the caller."""
        self.over = True
        self.let_go()

    def let_go(self):
        with self.pool.lock:
            worker = self.worker
            if worker is None or self.calls or (worker.in_transaction and not self.over):
                return  # nothing is held; or the last call gives it back
            if not worker.in_transaction and not worker.chores:
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
    if request.at_work and future.get_loop() is request.loop:
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


class Pool:
    def __init__(self, limit):
        self.limit = limit
        self.lock = threading.Lock()
        self.size = self.taken = 0
        self.running = 0  # requests at work: a call runs, or has ended just now
        self.free = []  # the last used is the first taken, so that the others' connections grow old
        self.waiting = deque()
        self.waited = 0.0

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

    # All of these with the lock held.

    def enter(self, calls):
        """Whether it has a thread now."""
        if self.running >= self.limit or not (self.free or self.size < self.limit * HELD):
            return False
        if not self.free:
            self.free.append(Worker(self))  # which may fail, for want of memory
            self.size += 1
        calls.worker = self.free.pop()
        calls.worker.held = True
        calls.works()
        self.taken += 1
        return True

    def done(self, calls, leaves):
        calls.calls -= 1
        if leaves:
            self.given_back(calls)

    def given_back(self, calls):
        self.running -= calls.at_work
        calls.worker.held = calls.at_work = False
        self.free.append(calls.worker)
        calls.worker, calls.begun = None, False
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


def remember(sender, connection, **kwargs):
    if own.request and connection not in own.request.worker.connections:
        own.request.worker.connections.append(connection)


pool = None


def open_pool():
    """The process's one pool, made at the first asking."""
    global pool
    if pool is None:
        pool = Pool(limit())
        connection_created.connect(remember, dispatch_uid="pergola_runtime.threads")
        sync.CurrentThreadExecutor = Bridge
        query.sync_to_async = sync_to_async
    return pool


def statistics():
    """Seconds and counts since the start. `busy` threads are held by a request, `running` ones at work."""
    found = pool or Pool(limit())
    counted = {name: getattr(found, name) for name in ("size", "limit", "running", "taken")}
    busy, waiting = found.size - len(found.free), len(found.waiting)
    return counted | {"busy": busy, "waiting": waiting, "waited_seconds": found.waited}
