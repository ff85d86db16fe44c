"""The pools themselves, in this process and in processes that were forked."""

import contextlib
import os
import queue
import socket
import threading
import time

import pytest
import redis
from pergola_runtime import redispool
from pergola_runtime.redispool import AsyncBoundedPool, BoundedPool
from waiting import wait_until

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


def test_a_lost_connection_is_opened_again(redis_process, client):
    client.set("key", "value")
    with contextlib.closing(redis_process.client()) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert client.get("key") == b"value"


def test_a_wrong_password_is_refused_at_once(redis_process, elapsed):
    with contextlib.closing(redis_process.client()) as other:
        other.config_set("requirepass", "right")
    with client_of(redis_process.url.replace("//", "//:wrong@")) as client:
        error, seconds = elapsed("a wrong password", client.ping)
        assert isinstance(error, (redis.AuthenticationError, redis.ResponseError))
        assert seconds < redispool.OUTAGE_SECONDS  # not as an outage
        assert client.connection_pool.connection_kwargs["retry"].server.answers.is_set()
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


def test_one_slow_command_fails_and_others_wait_for_redis(redis_process, client):
    """The server is asked whether it answers: only the slow command has failed."""
    client.set("key", "value")
    slow = threading.Thread(target=lambda: suppressed(client.blpop, ["nothing"], 5))
    slow.start()
    results = []
    end = time.monotonic() + 2 * redispool.COMMAND_SECONDS
    while time.monotonic() < end:
        results.append(client.get("key"))
    slow.join()
    assert set(results) == {b"value"}


def suppressed(function, *arguments):
    with contextlib.suppress(redis.RedisError):
        function(*arguments)


async def test_a_command_that_waits_for_a_message_may_wait_for_longer(redis_process):
    pool = AsyncBoundedPool.from_url(redis_process.url, socket_timeout=None)
    client = redis.asyncio.Redis(connection_pool=pool)
    began = time.monotonic()
    assert await client.bzpopmin("nothing", timeout=1) is None
    assert time.monotonic() - began > 0.9
    assert await client.ping()
    await client.aclose()


def test_the_servers_of_two_pools_of_an_address_are_one(redis_process):
    with (
        client_of(f"{redis_process.url}/1") as one,
        client_of(f"{redis_process.url}/2", max_connections=2) as two,
    ):
        servers = {found.connection_pool.connection_kwargs["retry"].server for found in (one, two)}
    assert len(servers) == 1


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
    server = client.connection_pool.connection_kwargs["retry"].server
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
            while redis_process.state() == "T":
                time.sleep(0.01)
            os.write(write, f"{known} {client.get('key')}".encode())
        finally:
            os._exit(0)
    os.close(write)
    redis_process.resume()
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"True b'value'"
    os.waitpid(child, 0)
    wait_until(server.answers.is_set, "the end of the outage")
    assert client.get("key") == b"value"


def test_many_threads_share_few_connections_and_each_gets_its_own_answer(redis_process, client):
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
        taken = connections.get(timeout=60)
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
