"""The threads of a worker process, and with them its database connections.

Django's ASGI handler gives each request a thread of its own for its synchronous code, and ends the thread
and its connections with the request. Here threads live as long as the process and serve one request after
another, as under WSGI. From its first synchronous call until it has ended, with its stream and the last of
its calls, a request holds one thread alone, so that what it puts into a `threading.local`, onto the
connection or into its session is its own. Then the thread returns to the pool, without an open transaction
and without a connection whose session was altered (sessions.py).

Threads that compute compete for the interpreter, so few run at a time: PERGOLA_THREADS calls have a slot. A
request that holds a thread continues at once. Others wait for a slot, in order, while the event loop runs
on. A call that waits (for another server, a lock, the event loop) or computes outside of the interpreter
loses its slot after a few milliseconds, as a scheduler hands off a blocked thread, and one that computes in
it for long after a tenth of a second, so that none of them delays the short ones.
"""

import asyncio
import contextlib
import functools
import os
import queue
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Executor
from contextvars import copy_context
from types import FunctionType

from asgiref import sync
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import query

from pergola_runtime import sessions
from pergola_runtime.choice import limit
from pergola_runtime.database import (
    close,
    hung_up,
    lost,
    needs_cleaning,
    obsolete,
    transaction_is_open,
    untouched,
)

# Threads of one process, most of which wait: 70 kB each, and at most one connection. Django's handler has no
# bound.
MOST = 2000
SOCKETS = 10_000  # in a process with WebSockets, which hold their threads for hours
IDLE_SECONDS = 60  # after which a thread that serves no request ends
# Seconds for which a request keeps its slot after a call. Most requests end earlier, and the same few threads
# serve them: without it, a row by a `def` view took a quarter more time.
GRACE = 0.005
# Seconds after which a call that used no processor time loses its slot to one that waits for it; and the same
# in a process that computes all the time, in which a call that computes waits for the interpreter as well.
HANDOFF = 0.005
HANDOFF_BUSY = 0.025
# Seconds within which a look is on time (uvloop's clock counts milliseconds), beside those for which no
# processor was free. While calls hold the interpreter, a look waits for it, up to 5 ms for each of them. So
# many on time in a row say that the interpreter is mostly idle: calls wait, or compute outside of it, as a
# password's hash does.
ON_TIME = 0.002
IN_A_ROW = 4
# Seconds after which a call that computes loses its slot as well, and a request (a stream, a WebSocket) keeps
# its slot no longer than its call. Short requests, which are most, have ended by then.
LONG = 0.1
# Times as many calls may begin after a look that found most of them waiting, and how many more at most: the
# event loop starts their threads.
MORE = 4
AT_ONCE = 100
# Seconds after which a request that makes no call, such as a stream, has its connection closed if its session
# was not altered: the next call opens an equal one.
REST = 2

NAMES = "_fetch_all aggregate contains count earliest exists explain first get in_bulk last latest"
READING = {getattr(query.QuerySet, name) for name in NAMES.split()}


def is_defined_in(module, function):
    """Whether this is a function of that module, and not one that an agent has put in its place.

    A wrapper that passes attributes through, as wrapt's do, is of another type.
    """
    return type(function) is FunctionType and function.__globals__ is vars(module)


# What runs a call in a thread; agents patch it to pass their context on.
UNPATCHED = (sync.sync_to_async, sync.SyncToAsync.__call__, sync.SyncToAsync.thread_handler)
UNPATCHED = UNPATCHED if all(is_defined_in(sync, function) for function in UNPATCHED) else (None, None, None)


class Own(threading.local):
    request = None  # the Calls whose call this thread runs


own = Own()


class Worker:
    """A thread that serves one request at a time."""

    def __init__(self, pool):
        self.pool = pool
        self.queue = queue.SimpleQueue()
        self.held = False  # by a request
        self.unclean = False  # a connection must be reset before the thread returns to the pool
        self.connections = []  # the open ones, as Django's wrappers
        self.used = time.monotonic()  # when its last call ended
        self.thread = threading.Thread(target=self.run, name=f"pergola-{pool.size}", daemon=True)
        self.thread.start()
        self.clock = time.pthread_getcpuclockid(self.thread.ident)

    def run(self):
        # (!) Threads that a view starts inherit it: at its end a server waits for those, and not for ours.
        self.thread._daemonic = False
        while call := self.next():
            request, future, function, args, kwargs = call
            own.request = request
            how = outcome = None
            if not future.cancelled():
                try:
                    self.begin(request)
                    outcome = function(*args, **kwargs)
                    how = future.set_result
                except BaseException as error:
                    outcome = error
                    how = future.set_exception
            # before the caller continues, or both compete for the interpreter
            try:
                self.ended(request)
            except Exception:  # of a database backend: its connections are not used again
                self.close_connections(self.connections)
                with self.pool.lock:
                    self.pool.done(request, request.over and request.calls == 1)
            loop = future.get_loop()
            if loop is not request.loop:  # one that the request made, which may end before any timer
                request.rests()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, request, future, how, outcome)
            # the result belongs to the caller alone
            own.request = outcome = how = call = request = future = function = args = kwargs = loop = None
        self.close_connections(self.connections)

    def next(self):
        while True:
            try:
                return self.queue.get(timeout=self.patience())
            except queue.Empty:
                self.close_connections([one for one in self.connections if self.spare(one)])
                if self.pool.lets_go(self):
                    return None

    def patience(self):
        """Seconds for which this thread waits for a call before a connection or the thread is spare."""
        now = time.monotonic()
        if self.held:
            # or it would not notice that it was given back
            times = [self.used + REST - now if any(map(untouched, self.connections)) else IDLE_SECONDS]
        else:
            times = [one.close_at - now for one in self.connections if one.close_at is not None]
            if self.pool.size > self.pool.limit:
                times.append(self.used + IDLE_SECONDS - now)
        return max(min(times), 0.05) if times else None

    def spare(self, connection):
        if self.held:
            return time.monotonic() >= self.used + REST and untouched(connection)
        return obsolete(connection)

    def begin(self, request):
        """Before a call.

        At a request's first, close connections that are too old, as Django does at its start, and those that
        another thread has altered since the last request. Later, those that the server has closed.
        """
        now = time.monotonic()
        if not request.begun:
            request.begun = now
            self.close_connections([one for one in self.connections if hung_up(one) or needs_cleaning(one)])
            for one in self.connections:
                one.health_check_done = False
                one.connection.login_is_known = False
        elif now > self.used + GRACE:
            self.close_connections([one for one in self.connections if lost(one)])
        request.looked = now, time.thread_time()
        request.called = now

    def ended(self, request):
        pool = self.pool
        for one in connections.all(initialized_only=True):
            if one.connection is not None and one not in self.connections:
                one.close_at = 0.0  # connect() failed after the login: this request alone may use it
                self.connections.append(one)
        self.connections = [one for one in self.connections if one.connection is not None]
        unclean = any(map(needs_cleaning, self.connections))
        self.used = time.monotonic()
        with pool.lock:
            request.called = 0.0
            self.unclean = unclean
            leaves = request.over and request.calls == 1
            if not leaves or not unclean:
                pool.done(request, leaves)
                return
        self.clean()
        with pool.lock:  # the request may have called again
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

    def __init__(self, pool, alone=False):
        self.pool = pool
        # Whether its thread is new and ends with it. A request may find in its thread what an earlier one
        # left, as under WSGI: middleware sets it again, and removes what must not be left. A task and a
        # WebSocket have no middleware, and that of a cancelled request may not have removed it: then the
        # thread ends, too.
        self.alone = alone
        self.loop = asyncio.get_running_loop()
        self.worker = self.waits = None  # waits: the calls that wait for a thread
        self.calls = self.asleep = 0  # asleep: 1 while its thread waits for the loop in async_to_sync()
        self.begun = 0.0  # when its thread began the first call of this request
        self.has_slot = False
        self.over = False  # the thread returns to the pool after the last call
        self.context = None  # a weak reference to the ThreadSensitiveContext
        self.since = 0.0  # when it began to wait for a thread
        self.called = 0.0  # when the call that runs began
        self.looked = 0.0, 0.0  # the time and the thread's processor time when it began, or at the last look

    def submit(self, function, /, *args, **kwargs):
        # (!) An asyncio future: an Executor's costs as much as all the rest of a call. Only read() and
        # loop.run_in_executor() call this, and the latter accepts both.
        future = asyncio.get_running_loop().create_future()
        call = (self, future, function, args, kwargs)
        pool = self.pool
        with pool.lock:
            if self.over:
                self.outlive()
            if self.waits is not None:
                self.waits.append(call)
            elif self.worker is not None or (not pool.waiting and pool.enter(self)):
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
        """Give the slot up, unless the request has called again."""
        with self.pool.lock:
            if self.asleep > 0 or not self.calls:
                self.give_slot()

    def sleeps(self, more):
        """Its thread begins to wait for the event loop (1), or continues (-1)."""
        with self.pool.lock:
            self.asleep += more
            if more < 0 and self.worker is not None:
                self.take_slot()
        if more > 0:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self.loop.call_soon_threadsafe(self.loop.call_later, GRACE, self.rests)

    def used(self, now, patience):
        """The part of a processor that its call has used since a look of `patience` seconds ago or more.

        None if it has no call, or not for so long.
        """
        then, before = self.looked
        if not self.called or now - then < patience:
            return None
        try:
            used = time.clock_gettime(self.worker.clock)
        except OSError:  # the thread has ended
            return 0.0
        self.looked = now, used
        return (used - before) / (now - then)

    def outlive(self):
        """A task of a request that has ended calls: it holds a thread until its context is gone."""
        context = self.context and self.context()
        if context is None or self.worker is not None:
            return  # the thread of the request still has calls to run
        self.over, self.alone = False, True
        # (!) not close() itself: it takes the pool's lock, which is held when the garbage collector runs here
        weakref.finalize(context, end_later, self.loop, self)

    def close(self):
        """End the request. Its thread, not the caller, waits for what it still runs."""
        self.over = True
        with self.pool.lock:
            worker = self.worker
            if worker is None or self.calls:
                return  # no thread is held; or the last call returns it
            if not worker.unclean:
                self.pool.given_back(self)
                return
        self.submit(lambda: None)


def sync_to_async_is_patched():
    call = sync.SyncToAsync
    return not (
        sync.sync_to_async is UNPATCHED[0]
        and call.__call__ is UNPATCHED[1]
        and call.thread_handler is UNPATCHED[2]
    )


def end_later(loop, calls):
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(calls.close)


def sync_to_async(function, **options):
    """asgiref's for Django's async ORM, which calls a read in half the time."""
    if getattr(function, "__func__", function) in READING and not sync_to_async_is_patched():
        return lambda *args, **kwargs: read(function, args, kwargs)
    return sync.sync_to_async(function, **options)


async def read(function, args, kwargs):
    """Do what asgiref does, except for what no read needs: its caller's exception, tasks of its own."""
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
        if request.pool.waiting and time.monotonic() > request.begun + LONG:
            request.rests()
        else:
            request.loop.call_later(GRACE, request.rests)
    if how is not None and not future.cancelled():
        how(outcome)


class Bridge(sync.CurrentThreadExecutor):
    """CurrentThreadExecutor that reports when its thread is idle in async_to_sync()."""

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
        except RuntimeError:  # the thread no longer waits
            self.sleeps(1)
            raise
        future.add_done_callback(lambda _: self.sleeps(1))
        return future


def seconds_without_processor():
    """For how long this thread has been ready to run while others used the processors: proc(5), schedstat."""
    try:
        with open("/proc/thread-self/schedstat") as file:  # noqa: PTH123 - called each few milliseconds
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):  # a kernel that does not count it
        return 0.0


class Pool:
    def __init__(self, limit):
        self.limit = self.allowed = limit  # slots; more are allowed while calls only wait
        self.raised = 0.0  # when more were allowed
        self.sockets = False  # whether WebSockets take threads
        self.lock = threading.Lock()
        self.size = self.taken = 0
        self.running = set()  # the requests that have a slot: a call runs, or ended within GRACE
        self.free = []  # the last used is taken first, so that the others' connections become too old
        self.waiting = deque()
        self.waited = 0.0
        self.watching = None  # the event loop in which hand_off() is due, while requests wait for a slot
        # when it was set up: the time, the process's processor time, and seconds_without_processor()
        self.looked = (0.0, 0.0, 0.0)
        self.due = 0.0  # and when it is to run
        self.on_time = 0  # how many times in a row it ran then

    async def until_the_loop_ends(self):
        """End the free threads when the server closes its async generators, before its loop ends."""
        try:
            yield
        finally:
            with self.lock:
                ended, self.free = self.free, []
                for worker in ended:
                    self.end(worker)
            for worker in ended:
                worker.thread.join(1)

    def watch(self, loop):
        self.looked = time.monotonic(), time.process_time(), seconds_without_processor()
        self.due = self.looked[0] + HANDOFF
        loop.call_later(HANDOFF, self.hand_off)

    def hand_off(self):
        """Give slots of calls that wait, or do not need the interpreter, to requests that wait for one."""
        now, used = time.monotonic(), time.process_time()
        late = now - self.due - (seconds_without_processor() - self.looked[2])
        with self.lock:
            self.on_time = self.on_time + 1 if late < ON_TIME else 0
            busy = used - self.looked[1] > 0.7 * (now - self.looked[0])
            patience = HANDOFF_BUSY if busy else HANDOFF
            parts = {one: part for one in self.running if (part := one.used(now, patience)) is not None}
            waits = [one for one, part in parts.items() if part < 0.1]
            long = [one for one in self.running if one.called and now > one.called + LONG]
            # together, as of many that compute each has less than a tenth; or the look is late, as its thread
            # had to wait for them
            compute = sum(parts.values()) > 0.5 or late > HANDOFF
            if self.waiting and len(waits) > len(self.running) / 2 and not compute:
                # a burst of calls that only wait: let more begin, or the last waits for many looks
                self.allowed = min(self.allowed * MORE, self.allowed + AT_ONCE, SOCKETS)
                self.raised = now
            elif compute or now > self.raised + 2 * HANDOFF_BUSY:
                self.allowed = self.limit
            outside = parts if self.on_time >= IN_A_ROW else ()
            for request in {*waits, *long, *outside}:
                request.give_slot()
            self.serve()  # also after a thread could not be started
            loop, self.watching = self.watching, None
            if self.waiting or self.allowed > self.limit:
                self.watch_from(loop)
            else:
                self.on_time = 0

    def lets_go(self, worker):
        """Take a thread out that has been idle for long; return whether it is to end."""
        if time.monotonic() < worker.used + IDLE_SECONDS:
            return False
        with self.lock:
            if worker not in self.free or self.size <= self.limit:
                return False
            self.free.remove(worker)
            self.size -= 1
            return True

    # All of these with the lock held.

    def watch_from(self, loop):
        """Call hand_off() after HANDOFF, unless it is due already."""
        if self.watching is None or self.watching.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.watch, loop)
                self.watching = loop

    def enter(self, calls):
        """Give it a thread and a slot if there are any; return whether it has them."""
        if len(self.running) >= self.allowed:
            return False
        calls.worker = self.free.pop() if self.free and not calls.alone else self.new_thread()
        if calls.worker is None:
            return False
        calls.worker.held = True
        calls.take_slot()
        self.taken += 1
        return True

    def new_thread(self):
        """None if there are too many. RuntimeError if none can be started and there is none to wait for."""
        if self.size < (SOCKETS if self.sockets else MOST):
            try:
                worker = Worker(self)
            except RuntimeError:  # at the unit's TasksMax
                if not self.size:
                    raise
            else:
                self.size += 1
                return worker
        if self.free:  # end one that is not used; the next look tries again
            self.end(self.free.pop(0))
        return None

    def end(self, worker):
        self.size -= 1
        worker.queue.put(None)

    def done(self, calls, leaves):
        calls.calls -= 1
        if leaves:
            self.given_back(calls)

    def given_back(self, calls):
        worker, calls.worker, calls.begun = calls.worker, None, 0.0
        worker.held = False
        if calls.alone:
            self.end(worker)
        else:
            self.free.append(worker)
        if calls.has_slot:
            calls.give_slot()
        else:
            self.serve()

    def serve(self):
        """Give threads to waiting requests, in order, while there are any."""
        with contextlib.suppress(RuntimeError):  # no thread can be started: hand_off() tries again
            while self.waiting and self.enter(self.waiting[0]):
                calls = self.waiting.popleft()
                self.waited += time.monotonic() - calls.since
                for call in calls.waits:
                    calls.worker.queue.put(call)
                calls.waits = None


def follow_connections():
    """Remember the connections of each thread. Not by Django's signal: agents report its receivers."""
    connect, initialize = BaseDatabaseWrapper.connect, BaseDatabaseWrapper.init_connection_state
    ensure = BaseDatabaseWrapper.ensure_connection

    @functools.wraps(connect)
    def connect_and_remember(connection):
        connect(connection)
        if own.request and connection not in own.request.worker.connections:
            own.request.worker.connections.append(connection)

    @functools.wraps(initialize)
    def watch_and_initialize(connection):
        """The first that connect() calls; what a project's receivers of connection_created do comes later."""
        if own.request:
            sessions.watch(connection)
        initialize(connection)

    @functools.wraps(ensure)
    def ensure_the_login(connection):
        """A request may set another database or user before its first query than a kept connection has."""
        driver = connection.connection
        if driver is not None and not getattr(driver, "login_is_known", True):
            driver.login_is_known = True
            if sessions.login(connection) != driver.login:
                close(connection)
        ensure(connection)

    BaseDatabaseWrapper.ensure_connection = ensure_the_login
    BaseDatabaseWrapper.connect = connect_and_remember
    BaseDatabaseWrapper.init_connection_state = watch_and_initialize


pool = None


def open_pool():
    """The pool of the process, made at the first call."""
    global pool
    if pool is None:
        pool = Pool(limit())
        follow_connections()
        sync.CurrentThreadExecutor = Bridge
        query.sync_to_async = sync_to_async
    return pool


def statistics():
    """Counts and seconds since the start.

    `busy` threads are held by a request; `running` requests have a slot.
    """
    found = pool or Pool(limit())
    counted = {name: getattr(found, name) for name in ("size", "limit", "taken")}
    counted["running"] = len(found.running)
    busy, waiting = found.size - len(found.free), len(found.waiting)
    return counted | {"busy": busy, "waiting": waiting, "waited_seconds": found.waited}
