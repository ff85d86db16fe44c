"""With each HTTP server: no request finds what another one left, and requests that wait delay no page.

And no WebSocket finds what another one left, with Daphne.
"""

import asyncio
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from waiting import until
from workers import HANDLERS, PATIENCE, TESTED_SERVERS, working
from wsproto import ConnectionType, WSConnection
from wsproto.events import CloseConnection, Request, TextMessage

REQUESTS, TOGETHER = 60, 10
SLEEPING = 40


@pytest.fixture(scope="module")
def schemas(users, server):
    for number in range(REQUESTS):
        server.execute(f"CREATE SCHEMA IF NOT EXISTS mark_{number}")
    yield
    for number in range(REQUESTS):
        server.execute(f"DROP SCHEMA mark_{number}")


@pytest.fixture(scope="module", params=TESTED_SERVERS)
def workers(request, schemas, directory):
    """A worker of this server for each handler."""
    # threads of ours keep their connections, for as long as a release does
    options = {"server": request.param, "site": "statesite", "max_age": 10}
    first, second = (working(handler, directory, **options) for handler in HANDLERS)
    with first as django, second as lean:
        yield dict(zip(HANDLERS, (django, lean), strict=True))


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("way", ["plain", "stream", "synchronous"])
def test_no_request_finds_what_another_left(workers, handler, way):
    worker = workers[handler]
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = [*pool.map(worker.request, [f"/{way}?{number}" for number in range(REQUESTS)])]
    wrong = [(status, body) for status, body, _ in answers if status != 200 or not body.endswith(b"alone")]
    assert not wrong, (wrong[:3], worker.log()[-3000:])


def message(worker, number):
    """The text that this WebSocket sends before it is closed."""
    connection, text = WSConnection(ConnectionType.CLIENT), ""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(worker.directory / "socket"))
        client.sendall(connection.send(Request(host="testserver", target=f"/?{number}")))
        while received := client.recv(65536):
            connection.receive_data(received)
            for event in connection.events():
                if isinstance(event, TextMessage):
                    text += event.data
                elif isinstance(event, CloseConnection):
                    return text
    raise AssertionError(f"{text!r}, and then the end without a close: {worker.log()[-3000:]}")


@pytest.mark.parametrize("handler", HANDLERS)
def test_no_websocket_finds_what_another_left(schemas, directory, handler):
    with (
        working(handler, directory, server="daphne", site="statesite", max_age=10) as worker,
        ThreadPoolExecutor(TOGETHER) as pool,
    ):
        texts = [*pool.map(partial(message, worker), range(REQUESTS))]
        assert texts == ["alone"] * REQUESTS, worker.log()[-3000:]


def all_sleep(worker):
    return worker.request("/sleepers")[1] == b"%d" % SLEEPING


def test_requests_that_wait_delay_no_page(workers):
    """Both handlers' requests wait at the same time, and their pages are asked for in turn."""
    with ThreadPoolExecutor(2 * SLEEPING) as pool:
        try:
            sleeping = {
                handler: [pool.submit(worker.request, "/sleeping") for _ in range(SLEEPING)]
                for handler, worker in workers.items()
            }
            for worker in workers.values():
                asyncio.run(until(partial(all_sleep, worker), worker.log))
            took = {handler: [] for handler in workers}
            for _ in range(20):
                for handler, worker in workers.items():
                    began = time.perf_counter()
                    assert worker.request("/page")[0] == 200
                    took[handler].append(time.perf_counter() - began)
            for requests in sleeping.values():
                assert not any(one.done() for one in requests)
        finally:
            for worker in workers.values():
                worker.request("/wake")
        for requests in sleeping.values():
            assert {one.result()[1] for one in requests} == {b"woke up"}
    seconds = {handler: statistics.median(one) for handler, one in took.items()}
    print(seconds)
    assert seconds["lean"] < 3 * seconds["django"], seconds
