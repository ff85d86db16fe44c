"""Pools of connections to Redis that bound their number, and how long a request waits for Redis.

An outage of Redis begins with the first command that fails. One thread of the process then connects again and
again until Redis answers, and the commands of all requests wait for it:

- after a refused or lost connection, or while Redis loads its data, for OUTAGE_SECONDS from the beginning of
  the outage. A restart within that time fails no request;
- after a command that had no answer for COMMAND_SECONDS, for CHECK_SECONDS, as only this command may be slow.
  It is not repeated.

After that time commands fail at once, until the thread has an answer. So a request waits once, for less than
a second, however many commands it sends through however many aliases of this Redis.
"""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import deque

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import NoBackoff

MAX_CONNECTIONS = 10  # of a pool; a command holds its connection for a tenth of a millisecond
COMMAND_SECONDS = 0.5  # for a free connection of the pool, and for an answer
CONNECT_SECONDS = 0.35  # for each address of the host's name; "localhost" has two
CHECK_SECONDS = 0.15  # (!) COMMAND_SECONDS and this together are less than the second that a request may wait
OUTAGE_SECONDS = 0.85
PROBE_SECONDS = 0.5  # for the answers to the thread that looks for the end of an outage
PROBE_PAUSES = 0.02, 0.25  # seconds between its attempts: while requests wait, and after that
POLL_SECONDS = 0.01
ATTEMPTS = 4

# The core layer waits in these for a message, up to five seconds. It repeats them.
BLOCKING = {"BZPOPMIN", "BZPOPMAX", "BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "XREAD", "XREADGROUP"}
BLOCKING_SECONDS = 10
# of a connection's options, those that its socket and login need
ADDRESS_OPTIONS = {"host", "port", "path", "db", "username", "password", "credential_provider", "protocol"}
RETRY_OPTIONS = {"retry", "retry_on_error", "retry_on_timeout"}

# An answer: Redis is there.
# errors that a server answers with; BusyLoadingError is a ConnectionError
ANSWERS = redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.ResponseError
FAILURES = redis.ConnectionError, redis.TimeoutError, OSError
SYNC_CLASSES = {
    redis.asyncio.Connection: redis.Connection,
    redis.asyncio.SSLConnection: redis.SSLConnection,
    redis.asyncio.UnixDomainSocketConnection: redis.UnixDomainSocketConnection,
}

servers = {}
servers_lock = threading.Lock()


def timed_out(error):
    return isinstance(error, (redis.TimeoutError, TimeoutError))  # the latter is a socket's


class Server:
    """A Redis, by its address, as this process finds it: shared by all pools of that address."""

    def __init__(self, address):
        self.address = address
        self.reset()

    def reset(self):
        self.lock = threading.Lock()
        self.answers = threading.Event()
        self.answers.set()
        self.deadline = 0.0
        self.error = None

    def failed(self, error, probe):
        """Begin an outage, unless one is under way. `probe()` raises an error if Redis does not answer."""
        with self.lock:
            if not self.answers.is_set():
                return
            self.error = error
            self.deadline = time.monotonic() + (CHECK_SECONDS if timed_out(error) else OUTAGE_SECONDS)
            self.answers.clear()
            try:
                threading.Thread(target=self.watch, args=(probe,), name="redis-probe", daemon=True).start()
            except RuntimeError:  # no more threads: the next command tries by itself
                self.answers.set()

    def watch(self, probe):
        while True:
            try:
                probe()
                break
            except ANSWERS:
                break
            except Exception as error:
                self.error = error
            time.sleep(PROBE_PAUSES[time.monotonic() > self.deadline])
        self.answers.set()

    def wait(self):
        """Return when Redis answers. Raises RedisError when it does not answer for too long."""
        if not self.answers.wait(max(0.0, self.deadline - time.monotonic())):
            raise self.refusal()

    async def wait_async(self):
        while not self.answers.is_set():
            if time.monotonic() > self.deadline:
                raise self.refusal()
            await asyncio.sleep(POLL_SECONDS)

    def refusal(self):
        kind = redis.TimeoutError if timed_out(self.error) else redis.ConnectionError
        return kind(
            f"Redis at {self.address} does not answer, no command is sent until it does: {self.error}"
        )


def server_of(connection_class, options):
    """The server of a connection's options."""
    path = options.get("path")
    address = path or f"{options.get('host') or 'localhost'}:{options.get('port') or 6379}"
    # one alias with a wrong scheme or user must not refuse the commands of the others
    is_encrypted = issubclass(connection_class, (redis.SSLConnection, redis.asyncio.SSLConnection))
    key = address, is_encrypted, options.get("username")
    with servers_lock:
        return servers.setdefault(key, Server(address))


def reset_after_fork():
    """The thread that looked for the end of an outage is the parent's."""
    global servers_lock
    servers_lock = threading.Lock()
    for server in servers.values():
        server.reset()


os.register_at_fork(after_in_child=reset_after_fork)


def probe_of(connection_class, options):
    """A function that connects, logs in and sends PING. Raises what went wrong."""
    connection_class = SYNC_CLASSES.get(connection_class, connection_class)
    kept = {
        name: value for name, value in options.items() if name in ADDRESS_OPTIONS or name.startswith("ssl_")
    }

    def probe():
        connection = connection_class(
            **kept,
            socket_timeout=PROBE_SECONDS,
            socket_connect_timeout=PROBE_SECONDS,
            retry=redis.retry.Retry(NoBackoff(), 0),
        )
        try:
            connection.connect()
            connection.send_command("PING")
            connection.read_response()
        finally:
            connection.disconnect()

    return probe


class Attempts:
    """What both kinds of retry share: when a command is sent again."""

    def __init__(self, server, probe):
        super().__init__(NoBackoff(), 1)
        self.server = server
        self.probe = probe

    def __deepcopy__(self, memo):
        return self  # each connection copies its retry; it has no state

    def goes_on(self, error, failures, deadline, is_retryable):
        """Whether to wait for the server and try again."""
        if isinstance(error, ANSWERS) or (is_retryable and not is_retryable(error)):
            return False
        self.server.failed(error, self.probe)
        return not timed_out(error) and failures < ATTEMPTS and time.monotonic() < deadline


class Retry(Attempts, redis.retry.Retry):
    def call_with_retry(self, do, fail, is_retryable=None, with_failure_count=False):
        failures, deadline = 0, time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return do()
            except FAILURES as error:
                failures += 1
                again = self.goes_on(error, failures, deadline, is_retryable)
                fail(*(error, failures) if with_failure_count else (error,))  # closes the connection
                if not again:
                    raise
                self.server.wait()


class AsyncRetry(Attempts, redis.asyncio.retry.Retry):
    async def call_with_retry(self, do, fail, is_retryable=None, with_failure_count=False):
        failures, deadline = 0, time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return await do()
            except FAILURES as error:
                failures += 1
                again = self.goes_on(error, failures, deadline, is_retryable)
                await fail(*(error, failures) if with_failure_count else (error,))  # closes the connection
                if not again:
                    raise
                await self.server.wait_async()


class Waiting:
    """A connection whose connect(), which its pool calls before each use, waits during an outage."""

    def connect(self):
        self.retry.server.wait()
        # redis-py 5 repeats the socket's connect() alone, and not the login, which meets a Redis that loads
        self.retry.call_with_retry(super().connect, lambda error: self.disconnect())


class AsyncWaiting:
    limited = False  # the limit of the command that is being sent is set

    async def connect(self):
        await self.retry.server.wait_async()
        await self.retry.call_with_retry(super().connect, lambda error: self.disconnect())

    async def send_command(self, *args, **options):
        if not self.is_connected:
            await self.connect()  # (!) first, as its own commands set their limit
        self.limit(args[0])
        await super().send_command(*args, **options)

    async def send_packed_command(self, *args, **options):
        """A pipeline's. One command's comes here too, with its limit set."""
        if not self.limited:
            self.limit(None)
        self.limited = False
        await super().send_packed_command(*args, **options)

    def limit(self, command):
        if self.limit_by_command:
            self.socket_timeout = BLOCKING_SECONDS if command in BLOCKING else COMMAND_SECONDS
            self.limited = True


waiting_classes = {}


def waiting(connection_class, base, **attributes):
    """The class that the URL's scheme asks for, with our connect()."""
    key = connection_class, *attributes.items()
    if key not in waiting_classes:
        waiting_classes[key] = type(connection_class.__name__, (base, connection_class), attributes)
    return waiting_classes[key]


def with_limits(options, retry_class, connection_class, base, **attributes):
    """A pool's options; those that are given stay."""
    if not options.get("max_connections"):
        options["max_connections"] = MAX_CONNECTIONS
    options.setdefault("timeout", COMMAND_SECONDS)
    options.setdefault("socket_timeout", COMMAND_SECONDS)
    options.setdefault("socket_connect_timeout", CONNECT_SECONDS)
    if not RETRY_OPTIONS & options.keys():
        connection_class = options.get("connection_class", connection_class)
        options["retry"] = retry_class(
            server_of(connection_class, options), probe_of(connection_class, options)
        )
        options["retry_on_error"] = [redis.ConnectionError]  # redis-py 5 repeats nothing without it
        options["connection_class"] = waiting(connection_class, base, **attributes)
    return options


class Connections:
    """A pool's free connections. The last one is taken first, and threads that wait get one in their order.

    A queue.Queue wakes a thread that waits, but another may be faster: with four threads for each connection
    some waited for longer than COMMAND_SECONDS.
    """

    def __init__(self, maxsize):
        self.maxsize = maxsize
        self.queue = []  # the names are those of queue.LifoQueue that redis-py uses
        self.waiting = deque()
        self.lock = threading.Lock()

    def put_nowait(self, connection):
        with self.lock:
            if self.waiting:
                turn = self.waiting.popleft()
                turn.connection = connection
                turn.set()
            elif len(self.queue) < self.maxsize:
                self.queue.append(connection)
            else:
                raise queue.Full

    def get(self, block=True, timeout=None):
        with self.lock:
            if self.queue:
                return self.queue.pop()
            if not block:
                raise queue.Empty
            turn = threading.Event()
            self.waiting.append(turn)
        if not turn.wait(timeout):
            with self.lock:
                if not turn.is_set():
                    self.waiting.remove(turn)
                    raise queue.Empty
        return turn.connection

    def get_nowait(self):
        return self.get(block=False)


class BoundedPool(redis.BlockingConnectionPool):
    def __init__(self, **options):
        options.setdefault("queue_class", Connections)
        super().__init__(**with_limits(options, Retry, redis.Connection, Waiting))

    def disconnect(self, inuse_connections=False):
        """Close the idle connections; the others may be in use by other requests.

        django-redis calls it at the end of each request if DJANGO_REDIS_CLOSE_CONNECTION is set.
        """
        if inuse_connections:
            super().disconnect()
            return
        self._checkpid()
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self.pool.get_nowait())
        for connection in reversed(idle):
            try:
                if connection is not None:
                    connection.disconnect()
            finally:
                self.pool.put_nowait(connection)


class AsyncBoundedPool(redis.asyncio.BlockingConnectionPool):
    def __init__(self, **options):
        # (!) Projects set None for the core layer, whose wait for a message redis-py 8 ends with an error
        # after 5 seconds. Here the limit depends on the command.
        by_command = options.get("socket_timeout") is None and not RETRY_OPTIONS & options.keys()
        if by_command:
            options["socket_timeout"] = COMMAND_SECONDS
        super().__init__(
            **with_limits(
                options, AsyncRetry, redis.asyncio.Connection, AsyncWaiting, limit_by_command=by_command
            )
        )
