"""Connections to Redis of a real worker: how many there are, and what a request waits for."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app.servers import ROOT, gunicorn
from waiting import wait_until

HERE = Path(__file__).parent
REQUESTS, TOGETHER = 600, 30
LATER = 60  # requests, in an outage
MOST = 10  # of a pool
PROMISE = 1.0  # seconds that a Redis that does not answer delays a request
HANDLERS = ("lean", "django")


@pytest.fixture(params=HANDLERS)
def handler(request):
    return request.param


def site(path, url, handler, **environment):
    environment |= {"REDIS_URL": url, "PERGOLA_HANDLER": handler, "DJANGO_SETTINGS_MODULE": ""}
    environment |= {"PERGOLA_APPLICATION": "redissite:application"}
    return gunicorn(path / "web.sock", "pergola_runtime.serving:application", cwd=HERE, env=environment)


@pytest.fixture
def server(tmp_path, redis_process, handler):
    """With ten times the limits on waiting, so that only an error of the runtime makes a request fail."""
    with site(tmp_path, redis_process.url, handler, TIMES="10") as running:
        assert get(running, "/get/default")[0] == 200
        yield running


@pytest.fixture
def strict_server(tmp_path, redis_process, handler):
    with site(tmp_path, redis_process.url, handler) as running:
        wait_until(lambda: get(running, "/get/default")[0] == 200, "the first request to be answered")
        yield running


def get(server, path):
    """Status, document and seconds."""
    with server.connect() as client:
        began = time.monotonic()
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := client.recv(65536):
            answer += data
        seconds = time.monotonic() - began
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if status == 200 else body, seconds


def many(server, paths, count=REQUESTS, together=TOGETHER):
    with ThreadPoolExecutor(together) as clients:
        return list(clients.map(lambda number: get(server, paths[number % len(paths)]), range(count)))


def failures(answers):
    return [answer for answer in answers if answer[0] != 200]


def shown(capsys, text):
    with capsys.disabled():
        print(f"\n  {text}", end="")


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(["/get/default"], id="def"),
        pytest.param(["/aget/default"], id="async"),
        pytest.param(["/free/default"], id="thread"),
        pytest.param(["/get/redis-default", "/aget/redis-default"], id="django-redis"),
        pytest.param(["/get/redis-closing"], id="django-redis-close"),
        pytest.param(["/session", "/page"], id="session-and-page"),
        pytest.param(["/send/default", "/send-def/default"], id="pubsub-layer"),
        pytest.param(["/send/core", "/send-def/core"], id="core-layer"),
    ],
)
def test_600_requests_leave_few_connections(server, redis_process, paths, capsys):
    answers = many(server, paths)
    assert not failures(answers), (failures(answers)[:2], server.log()[-3000:])
    found = redis_process.connections()
    shown(capsys, f"{found} connections, {sum(answer[2] for answer in answers) / TOGETHER:.1f} s")
    # a view's own pool, and that of /get/default by the fixture, which has one connection
    assert found <= MOST * len(paths) + 1


def test_a_projects_own_limits_and_pool_class_stay(server, redis_process):
    assert not failures(many(server, ["/get/own-class"], 200))
    assert redis_process.connections() <= 4 + 1
    statuses = {answer[0] for answer in many(server, ["/get/own-limit"], 200)}
    assert statuses == {200}
    assert redis_process.connections() <= 4 + 3 + 1


def test_replicas_have_few_connections(server, redis_process):
    answers = many(server, ["/get/replicas"], 200)
    assert not failures(answers)
    assert redis_process.connections() <= 2 * MOST + 1  # two different URLs


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_aliases_keep_their_databases_and_prefixes(tmp_path, redis_process, handler, scheme):
    url = redis_process.url if scheme == "tcp" else redis_process.unix_url
    aliases = (
        *("default", "first", "second", "option", "prefixed", "other"),
        *("redis-default", "redis-first", "redis-prefixed", "redis-option", "redis-other-option"),
    )
    with site(tmp_path, url, handler, TIMES="10") as server:
        for alias in aliases:
            assert get(server, f"/get/{alias}")[1] == {"found": alias}
        for alias in aliases:  # none overwrote another's
            assert get(server, f"/free/{alias}")[1] == {"found": alias}
    keys = {
        number: {key.decode() for key in redis_process.client(db=number).scan_iter()} for number in range(9)
    }
    assert keys == {
        0: {":1:key", "a:1:key", "b:1:key"}, 1: {":1:key"}, 2: {":1:key"}, 3: {":1:key"},
        4: {":1:key", "a:1:key"}, 5: {":1:key"}, 6: {":1:key"}, 7: {":1:key"}, 8: set(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/get/default",
        "/aget/default",
        "/get/redis-default",
        "/several",
        "/session",
        "/send/default",
        "/send/core",
    ],
)
def test_a_suspended_redis_delays_a_request_by_less_than_a_second(strict_server, redis_process, path, capsys):
    wait_until(lambda: get(strict_server, path)[0] == 200, "the first request to be answered")
    commands, connections = redis_process.counts()
    redis_process.suspend()
    try:
        only_the_first_waits(strict_server, path, capsys)
    finally:
        redis_process.resume()
    found = redis_process.counts()
    assert found[0] == commands + 1  # no later request has sent any
    assert found[1] < connections + LATER / 2  # nor connected; the thread that looks for Redis does
    recovers(strict_server, path)


def test_of_requests_in_flight_when_redis_is_suspended_none_waits_longer(
    strict_server, redis_process, capsys
):
    redis_process.suspend()
    try:
        answers = many(strict_server, ["/several", "/get/default", "/aget/first", "/send/default"], 60, 60)
    finally:
        redis_process.resume()
    seconds = sorted(answer[2] for answer in answers)
    shown(capsys, f"of 60 requests the median waited {seconds[30]:.2f} s, the slowest {seconds[-1]:.2f} s")
    assert seconds[-1] < 10 * PROMISE
    recovers(strict_server, "/several")


def outage(server):
    return get(server, "/outage")[1]


def only_the_first_waits(server, path, capsys):
    """After an outage's deadline commands fail without a wait: none of the later requests moves it."""
    first = get(server, path)[2]
    wait_until(lambda: outage(server)["over"], "the deadline")
    found = outage(server)
    slowest = max(answer[2] for answer in many(server, [path], LATER, 20))
    shown(capsys, f"the first waited {first:.2f} s, of {LATER} later ones the slowest {slowest:.2f} s")
    assert found == outage(server) == found | {"answers": False}
    assert first < 10 * PROMISE


def recovers(server, path):
    def answers():
        status, document, _ = get(server, path)
        return status == 200 and not document.get("failures")

    wait_until(answers, "Redis")
    wait_until(lambda: not failures(many(server, [path], 60)), "all requests to be answered")


@pytest.mark.parametrize("away", ["refuses", "loads"])
@pytest.mark.parametrize("path", ["/get/default", "/aget/redis-default", "/send/default", "/send/core"])
def test_a_restart_of_redis_fails_no_request(server, redis_process, path, away, capsys):
    """Refused for 0.4 s, or refused and then loading its data for 0.35 s. The limit is 8.5 s here (TIMES)."""
    options = ()
    if away == "loads":
        with contextlib.closing(redis_process.client(db=9)) as client:
            client.mset({f"key {number}": number for number in range(350)})
            client.save()
        options = "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(get(server, path))

    with ThreadPoolExecutor(8) as clients:
        asking = [clients.submit(ask) for _ in range(8)]
        try:
            for _ in range(2):
                before = len(answers)
                wait_until(lambda before=before: len(answers) > before + 20, "requests to be answered")
                redis_process.kill()
                wait_until(lambda: not outage(server)["answers"], "a request to find Redis away")
                time.sleep(0 if options else 0.4)  # more requests come
                redis_process.start(*options)
                redis_process.wait()
                wait_until(lambda: outage(server)["answers"], "the outage to end")
        finally:
            stop.set()
        for one in asking:
            one.result()
    slowest = max(answer[2] for answer in answers)
    shown(capsys, f"{len(answers)} requests, the slowest {slowest:.2f} s")
    assert not failures(answers), (len(failures(answers)), server.log()[-3000:])


def test_a_redis_that_stays_away_delays_only_the_first_requests(strict_server, redis_process, capsys):
    redis_process.kill()
    only_the_first_waits(strict_server, "/several", capsys)
    redis_process.start()
    recovers(strict_server, "/several")


# as Django 6.1 makes a client: with an object of its own among the options that has no hash
CLIENTS = """
from django.conf import settings
settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}})
from django.core.cache.backends.redis import RedisCacheClient
from pergola_runtime.rediscache import limit_connections
from redis import DriverInfo

limit_connections()
names = ["one", "one", "other"]
options = [{"driver_info": DriverInfo(name=name)} for name in names]
clients = [RedisCacheClient(["redis://localhost:1"], **these) for these in options]
one, again, other = [client._get_connection_pool(write=True) for client in clients]
assert one is again
assert one is not other
assert DriverInfo.__hash__ is None
"""


def test_clients_whose_options_have_no_hash_share_a_pool():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
    command = [sys.executable, "-c", CLIENTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
