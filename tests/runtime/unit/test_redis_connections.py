"""Connections to Redis of a real worker: how many there are, and what a request waits for."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app.servers import gunicorn

HERE = Path(__file__).parent
REQUESTS, TOGETHER = 600, 30
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
    with site(tmp_path, redis_process.url, handler) as running:
        assert get(running, "/get/default")[0] == 200
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
    with site(tmp_path, url, handler) as server:
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
def test_a_suspended_redis_delays_a_request_by_less_than_a_second(server, redis_process, path, capsys):
    assert get(server, path)[0] == 200
    redis_process.suspend()
    try:
        first = get(server, path)
        # these come when the worker knows, and wait for nothing
        later = many(server, [path], 60, 20)
    finally:
        redis_process.resume()
    only_the_first_waited(first, later, capsys)
    recovers(server, path)


def test_of_requests_in_flight_when_redis_is_suspended_none_waits_longer(server, redis_process, capsys):
    redis_process.suspend()
    try:
        answers = many(server, ["/several", "/get/default", "/aget/first", "/send/default"], 60, 60)
    finally:
        redis_process.resume()
    seconds = sorted(answer[2] for answer in answers)
    shown(capsys, f"of 60 requests the median waited {seconds[30]:.2f} s, the slowest {seconds[-1]:.2f} s")
    assert seconds[-1] < 10 * PROMISE
    recovers(server, "/several")


def only_the_first_waited(first, later, capsys):
    seconds = sorted(answer[2] for answer in later)
    median, slowest = seconds[len(seconds) // 2], seconds[-1]
    shown(capsys, f"the first waited {first[2]:.2f} s, of 60 later ones the slowest {slowest:.2f} s")
    assert first[2] < 10 * PROMISE
    assert slowest < 10 * PROMISE
    assert median < first[2] / 2  # at twenty requests at the same time, which also wait for the processor


def recovers(server, path):
    end = time.monotonic() + 30
    while (answer := get(server, path))[0] != 200 or answer[1].get("failures"):
        assert time.monotonic() < end, answer
    assert not failures(many(server, [path], 60))


@pytest.mark.parametrize("away", ["refuses", "loads"])
@pytest.mark.parametrize("path", ["/get/default", "/aget/redis-default", "/send/default", "/send/core"])
def test_a_restart_of_redis_fails_no_request(server, redis_process, path, away, capsys):
    """Refused for 0.4 s, or refused for a moment and loading its data for 0.35 s; 0.85 s is the limit."""
    many(server, [path], 60)
    options = ()
    if away == "loads":
        client = redis_process.client(db=9)
        client.mset({f"key {number}": number for number in range(350)})
        client.save()
        client.close()
        options = "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(get(server, path))

    with ThreadPoolExecutor(8) as clients:
        try:
            asking = [clients.submit(ask) for _ in range(8)]
            for _ in range(2):
                time.sleep(0.5)
                redis_process.kill()
                time.sleep(0 if options else 0.4)
                redis_process.start(*options)
                redis_process.wait()
            time.sleep(0.5)
        finally:
            stop.set()
        for one in asking:
            one.result()
    slowest = max(answer[2] for answer in answers)
    shown(capsys, f"{len(answers)} requests, the slowest {slowest:.2f} s")
    assert not failures(answers), (len(failures(answers)), server.log()[-3000:])


def test_a_redis_that_stays_away_delays_only_the_first_requests(server, redis_process, capsys):
    redis_process.kill()
    first = get(server, "/several")
    later = many(server, ["/several"], 60, 20)
    only_the_first_waited(first, later, capsys)
    redis_process.start()
    recovers(server, "/several")
