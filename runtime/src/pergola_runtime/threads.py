"""The threads of a worker process, and with them its database connections.

asgiref gives each request a new thread for its synchronous code, and ends it with the request: a database
connection cannot outlive it. Here the threads live as long as the process. A request takes one at its first
synchronous call and keeps it, so that all of its calls run on the same one. When it and its last call have
ended, it gives it back, without an open transaction.

Where all threads are taken, a request shares one that is at rest between two calls of another request, and
with none at rest waits its turn, in the order of asking and without holding up the event loop. A thread whose
request left a transaction open between two calls is that request's alone until it ends.
"""

import asyncio
import contextlib
import os
import queue
import select
import threading
import time
from collections import deque
from concurrent.futures import Executor

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.signals import connection_created

MAX_AGE = 10  # seconds for which a connection is kept; PgBouncer, told to stop, waits for all of them to go
# threads of one process, unless PERGOLA_THREADS says another number; more of them fight for the interpreter:
# asked by 64 at once, 8 took a tenth more processor time for twenty rows than 4, and a third longer at worst
LIMIT = 4
IDLE = 0  # libpq's PQTRANS_IDLE: no transaction

own = threading.local()


def limit(environ=os.environ):
    text = environ.get("PERGOLA_THREADS") or str(LIMIT)
    if not text.isdecimal() or int(text) < 1:
        raise ImproperlyConfigured(f"PERGOLA_THREADS={text} is no whole number from 1 on: set app_threads")
    return int(text)


class Worker:
    """One thread. `requests` and `calls` count who holds it and what it still has to do."""

    def __init__(self, pool):
        self.pool = pool
        self.queue = queue.SimpleQueue()
        self.put_off = deque()  # what came while another request's transaction was open here
        self.requests = self.calls = 0
        self.owner = None  # the request that left a transaction open
        self.chores = False  # whether something is to be done before the thread is given back
        self.connections = []  # the open ones, as Django's wrappers
        self.thread = threading.Thread(target=self.run, name=f"pergola-{pool.size}", daemon=True)
        self.thread.start()

    def run(self):
        own.worker = self
        while call := self.next():
            request, future, function, args, kwargs = call
            if self.owner not in (None, request):
                self.put_off.append(call)
                continue
            how = None
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
            if how is not None:
                with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                    future.get_loop().call_soon_threadsafe(settle, future, how, outcome)
            # what came out is the caller's alone
            outcome = how = call = request = future = function = args = kwargs = None
        self.close_connections(self.connections)

    def next(self):
        if self.put_off and self.owner is None:
            return self.put_off.popleft()
        while True:
            try:
                return self.queue.get(timeout=self.patience())
            except queue.Empty:
                if not self.requests:
                    self.close_connections([one for one in self.connections if obsolete(one)])

    def patience(self):
        """Seconds until a connection here is too old, while nobody holds the thread."""
        ages = [one.close_at for one in self.connections if one.close_at is not None]
        return max(min(ages) - time.monotonic(), 1 if self.requests else 0.05) if ages else None

    def begin(self, request):
        """What Django does at a request's start: what is too old or was closed by the server is not used."""
        request.begun = True
        # what another request holds as well may have a session that it needs
        alone = self.requests == 1
        self.close_connections([one for one in self.connections if hung_up(one) or (alone and obsolete(one))])

    def ended(self, request):
        pool = self.pool
        in_transaction = any(map(transaction_is_open, self.connections))
        chores = any(one.errors_occurred or one.queries_log or obsolete(one) for one in self.connections)
        with pool.lock:
            self.chores = chores
            leaves = request.calls == 1 and (request.over or (request.lends and not in_transaction))
            if not leaves or not (in_transaction or chores):
                self.done(request, leaves, in_transaction)
                return
        self.clean()
        with pool.lock:  # another call of its may have come meanwhile
            self.done(request, request.calls == 1)

    def done(self, request, leaves, in_transaction=False):
        request.calls -= 1
        self.calls -= 1
        self.owner = request if in_transaction and not leaves else None
        if leaves:
            self.pool.given_back(self, request)
        else:
            self.pool.rests(self)

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
        self.chores = False
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
        self.worker = None
        self.calls = 0
        self.begun = False
        self.lends = False  # gives the thread back after each call that leaves no transaction open
        self.over = over  # gives it back after each call, whatever it leaves
        self.waits = None  # the calls that wait for a thread
        self.since = 0.0

    def submit(self, function, /, *args, **kwargs):
        # (!) asyncio's own and not an Executor's, which costs as much as all the rest of a call: nothing but
        # loop.run_in_executor() calls this, and it takes both
        future = asyncio.get_running_loop().create_future()
        call = (self, future, function, args, kwargs)
        pool = self.pool
        with pool.lock:
            self.calls += 1
            if self.waits is not None:
                self.waits.append(call)
                return future
            worker = self.worker
            if worker is None:
                worker = pool.take()
                if worker is None:
                    self.waits = [call]
                    self.since = time.monotonic()
                    pool.waiting.append(self)
                    return future
                self.worker = worker
                worker.requests += 1
            worker.calls += 1
            pool.resting.pop(worker, None)
        worker.queue.put(call)
        return future

    def lend(self):
        """From here on the thread is only held while it is used: a stream waits most of its time."""
        self.lends = True
        self.let_go()

    def close(self):
        """The request has ended. What it still runs is waited for, by the thread and not by the caller."""
        self.over = True
        self.let_go()

    def let_go(self):
        with self.pool.lock:
            worker = self.worker
            if worker is None or self.calls:
                return  # nothing is held; or the last call gives it back
            if worker.owner is self and not self.over:
                return
            if worker.owner is not self and not worker.chores:
                self.pool.given_back(worker, self)
                return
        self.submit(lambda: None)


def settle(future, how, outcome):
    if not future.cancelled():
        how(outcome)


class Pool:
    def __init__(self, limit):
        self.limit = limit
        self.lock = threading.Lock()
        self.size = 0
        self.free = []  # nobody's; the last used is the first taken, so that the others' connections grow old
        self.resting = {}  # somebody's, between two calls; in the order in which they came to rest
        self.waiting = deque()
        self.taken = 0
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

    def take(self):
        self.taken += 1
        if self.free:
            return self.free.pop()
        if self.size < self.limit:
            self.size += 1
            return Worker(self)
        return next(iter(self.resting), None)

    def rests(self, worker):
        if not worker.calls and worker.owner is None:
            self.resting[worker] = None
            self.serve(worker)

    def given_back(self, worker, calls):
        calls.worker, calls.begun = None, False
        worker.requests -= 1
        if worker.requests:
            self.rests(worker)
            return
        self.resting.pop(worker, None)
        if not self.serve(worker):
            self.free.append(worker)

    def serve(self, worker):
        """Gives it the first who waits, if somebody does."""
        if not self.waiting:
            return False
        calls = self.waiting.popleft()
        self.waited += time.monotonic() - calls.since
        self.resting.pop(worker, None)
        calls.worker = worker
        worker.requests += 1
        worker.calls += len(calls.waits)
        for call in calls.waits:
            worker.queue.put(call)
        calls.waits = None
        return True


def obsolete(connection):
    return connection.close_at is not None and time.monotonic() >= connection.close_at


def hung_up(connection):
    """Whether the server has said something unasked, which is that it has gone. No round trip."""
    # an error is no socket: another database, or closed, which Django finds by itself
    with contextlib.suppress(Exception):
        return readable(connection.connection.fileno())
    return False


def readable(socket):
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def transaction_is_open(connection):
    if connection.connection is None:
        return False
    if connection.in_atomic_block or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return True
    # one that was begun by SQL, past Django
    driver = getattr(connection.connection, "pgconn", None) or getattr(connection.connection, "info", None)
    return driver is not None and driver.transaction_status != IDLE


def remember(sender, connection, **kwargs):
    worker = getattr(own, "worker", None)
    if worker is not None and connection not in worker.connections:
        worker.connections.append(connection)


pool = None


def open_pool():
    """The process's one pool, made at the first asking."""
    global pool
    if pool is None:
        pool = Pool(limit())
        connection_created.connect(remember, dispatch_uid="pergola_runtime.threads")
    return pool


def statistics():
    """Seconds and counts since the start. `busy` are the threads that a request holds."""
    found = pool or Pool(limit())
    return {
        "size": found.size,
        "limit": found.limit,
        "busy": found.size - len(found.free),
        "waiting": len(found.waiting),
        "waited_seconds": found.waited,
        "taken": found.taken,
    }
