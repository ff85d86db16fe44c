"""The pools themselves, in this process and in processes that were forked."""

import contextlib
import os
import queue
import socket
import threading
import time
from types import SimpleNamespace
from unittest import mock

import pytest
import redis
from pergola_runtime import redispool
from pergola_runtime.redispool import AsyncBoundedPool, BoundedPool
from waiting import PATIENCE, wait_until

PROMISE = 1.0


@pytest.fixture
def client(redis_process):
    with client_of(redis_process.url) as found:
        yield found


@contextlib.contextmanager
def client_of(url, **options):
    pool = BoundedPool.from_url(url, **options)
    try:
        yield redis.Redis(connection_pool=pool)
    finally:
        pool.disconnect(True)


def server_of(client):
    return client.connection_pool.connection_kwargs["retry"].server


@pytest.fixture
def deaf():
    """A port that answers to no SYN, as where packets are lost: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_a_request_waits_for_redis_for_less_than_a_second():
    """The other tests of this promise have ten times as long, as the machine may be busy."""
    assert redispool.COMMAND_SECONDS + redispool.CHECK_SECONDS < PROMISE
    assert 2 * redispool.CONNECT_SECONDS + redispool.CHECK_SECONDS < PROMISE  # of two addresses
    assert redispool.OUTAGE_SECONDS < PROMISE


def test_a_connection_that_was_made_has_these_limits(redis_process, client):
    pool = client.connection_pool
    assert (pool.max_connections, pool.timeout) == (10, 0.5)
    connection = pool.make_connection()
    connection.connect()
    limits = connection._sock.gettimeout(), connection.socket_connect_timeout
    connection.disconnect()
    assert limits == (0.5, 0.35)


async def test_an_async_connection_that_was_made_has_these_limits(redis_process):
    pool = AsyncBoundedPool.from_url(redis_process.url)
    assert (pool.max_connections, pool.timeout) == (10, 0.5)
    connection = pool.make_connection()
    await connection.connect()
    limits = []
    # channels-redis's core layer waits for messages in these
    for command in (["PING"], ["BZPOPMIN", "nothing", "0.01"], ["PING"]):
        await connection.send_command(*command)
        limits.append(connection.socket_timeout)
        await connection.read_response()
    await connection.disconnect()
    assert limits == [0.5, 10, 0.5]
    assert connection.socket_connect_timeout == 0.35


def test_a_command_waits_until_the_deadline_of_an_outage_and_not_after_it(monkeypatch):
    server = redispool.Server("nowhere")
    monkeypatch.setattr(redispool, "threading", SimpleNamespace(Thread=mock.Mock()))
    server.failed(redis.TimeoutError("no answer"), None)
    deadline, waits = server.deadline, []
    monkeypatch.setattr(server.answers, "wait", waits.append)
    for now in (deadline - 0.1, deadline, deadline + 1):
        monkeypatch.setattr(redispool, "time", SimpleNamespace(monotonic=lambda now=now: now))
        with pytest.raises(redis.TimeoutError, match="Redis at nowhere does not answer"):
            server.wait()
        server.failed(redis.TimeoutError("no answer"), None)
    assert waits == [pytest.approx(0.1), 0, 0]
    assert server.deadline == deadline  # it is the same outage


def test_a_lost_connection_is_opened_again(redis_process, client):
    client.set("key", "value")
    with contextlib.closing(redis_process.client()) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert client.get("key") == b"value"


def test_a_wrong_password_is_refused_at_once(redis_process):
    with contextlib.closing(redis_process.client()) as other:
        other.config_set("requirepass", "right")
    with client_of(redis_process.url.replace("//", "//:wrong@")) as client:
        with pytest.raises((redis.AuthenticationError, redis.ResponseError)):
            client.ping()
        assert not server_of(client).deadline  # no outage has begun
    with client_of(redis_process.url.replace("//", "//:right@")) as client:
        assert client.ping()


def test_where_packets_are_lost_a_command_fails_within_a_second(deaf, elapsed):
    with client_of(f"redis://127.0.0.1:{deaf}") as client:
        error, seconds = elapsed("no connection", client.ping)
        assert isinstance(error, redis.TimeoutError)
        assert seconds < 10 * PROMISE
        error, seconds = elapsed("the second time", client.ping)
        assert isinstance(error, redis.TimeoutError)
        assert seconds < 10 * PROMISE
        error, seconds = elapsed("the third time", client.ping)
        assert isinstance(error, redis.RedisError)


async def test_an_async_command_fails_within_a_second(deaf, capsys):
    pool = AsyncBoundedPool.from_url(f"redis://127.0.0.1:{deaf}")
    client = redis.asyncio.Redis(connection_pool=pool)
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        await client.ping()
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  no connection, async: {seconds:.2f} s", end="")
    assert seconds < 10 * PROMISE
    await client.aclose()


def test_one_slow_command_fails_and_others_wait_for_redis(redis_process, client, monkeypatch):
    """The server is asked whether it answers: only the slow command has failed."""
    monkeypatch.setattr(redispool, "CHECK_SECONDS", PATIENCE)
    with client_of(redis_process.url, socket_timeout=PATIENCE) as patient:
        patient.set("key", "value")
        with pytest.raises(redis.TimeoutError):
            client.blpop(["nothing"], 5)
        assert server_of(patient).deadline  # an outage has begun
        assert patient.get("key") == b"value"
        assert server_of(patient).answers.is_set()


async def test_a_command_that_waits_for_a_message_may_wait_for_longer(redis_process):
    pool = AsyncBoundedPool.from_url(redis_process.url, socket_timeout=None)
    client = redis.asyncio.Redis(connection_pool=pool)
    assert await client.bzpopmin("nothing", timeout=2 * redispool.COMMAND_SECONDS) is None
    assert await client.ping()
    await client.aclose()


def test_the_servers_of_two_pools_of_an_address_are_one(redis_process):
    with (
        client_of(f"{redis_process.url}/1") as one,
        client_of(f"{redis_process.url}/2", max_connections=2) as two,
    ):
        assert server_of(one) is server_of(two)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:1/0", redis.Connection),
        ("rediss://127.0.0.1:1/0?ssl_cert_reqs=none", redis.SSLConnection),
        ("unix:///run/redis.sock?db=2", redis.UnixDomainSocketConnection),
    ],
)
def test_the_urls_scheme_makes_the_connection(url, kind):
    connection = BoundedPool.from_url(url).make_connection()
    assert isinstance(connection, kind)
    assert isinstance(connection, redispool.Waiting)
    assert isinstance(connection.retry, redispool.Retry)


def test_given_options_stay():
    given = {"max_connections": 3, "socket_timeout": 5, "socket_connect_timeout": 4, "timeout": 2}
    pool = BoundedPool.from_url("redis://127.0.0.1:1", **given)
    connection = pool.make_connection()
    assert (pool.max_connections, pool.timeout) == (3, 2)
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (5, 4)
    own = redis.retry.Retry(redis.backoff.NoBackoff(), 7)
    connection = BoundedPool.from_url("redis://127.0.0.1:1?socket_timeout=9", retry=own).make_connection()
    assert (type(connection.retry), connection.retry._retries) == (type(own), 7)
    assert connection.socket_timeout == 9


def test_a_forked_process_opens_connections_of_its_own_and_forgets_an_outage(redis_process, client):
    client.set("key", "value")
    server = server_of(client)
    redis_process.suspend()
    with pytest.raises(redis.TimeoutError):
        client.get("key")
    assert not server.answers.is_set()
    read, write = os.pipe()
    child = os.fork()
    if not child:  # (!) whatever happens, it must not return into pytest
        try:
            os.close(read)
            known = server.answers.is_set()
            wait_until(lambda: redis_process.state() != "T", "Redis to go on")
            os.write(write, f"{known} {wait_until(lambda: value_of(client), 'the value')}".encode())
        finally:
            os._exit(0)
    os.close(write)
    redis_process.resume()
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"True b'value'"
    os.waitpid(child, 0)
    assert wait_until(lambda: value_of(client), "the end of the outage") == b"value"


def value_of(client):
    with contextlib.suppress(redis.RedisError):
        return client.get("key")


def test_many_threads_share_few_connections_and_each_gets_its_own_answer(redis_process):
    wrong = []

    def work(name):
        for number in range(50):
            key = f"{name}:{number}"
            try:
                client.set(key, key)
                if client.get(key) != key.encode():
                    wrong.append(key)
            except redis.RedisError as error:
                wrong.append(error)

    with client_of(redis_process.url, timeout=PATIENCE, socket_timeout=PATIENCE) as client:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert redis_process.connections() <= redispool.MAX_CONNECTIONS


def test_threads_that_wait_for_a_connection_get_it_in_their_order():
    connections = redispool.Connections(1)
    connections.put_nowait("only")
    assert connections.get() == "only"
    with pytest.raises(queue.Empty):
        connections.get(timeout=0.01)
    order, threads = [], []

    def take(name):
        taken = connections.get(timeout=PATIENCE)
        order.append(name)
        connections.put_nowait(taken)

    for name in range(20):
        threads.append(threading.Thread(target=take, args=(name,)))
        threads[-1].start()
        wait_until(lambda wanted=name + 1: len(connections.waiting) == wanted, "the thread to wait")
    connections.put_nowait("only")
    for thread in threads:
        thread.join()
    assert order == sorted(order)
    assert connections.queue == ["only"]
    with pytest.raises(queue.Full):
        connections.put_nowait("another")
