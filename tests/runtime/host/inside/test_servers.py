"""With each HTTP server: no request finds what another one left, and requests that wait delay no page."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from workers import HANDLERS, TESTED_SERVERS, working

REQUESTS, TOGETHER = 60, 10
SLEEPING = 40


@pytest.fixture(scope="module", params=TESTED_SERVERS)
def workers(request, users, directory, server):
    """A worker of this server for each handler."""
    for number in range(REQUESTS):
        server.execute(f"CREATE SCHEMA IF NOT EXISTS mark_{number}")
    # threads of ours keep their connections, for as long as a release does
    options = {"server": request.param, "site": "statesite", "max_age": 10}
    first, second = (working(handler, directory, **options) for handler in HANDLERS)
    with first as django, second as lean:
        yield dict(zip(HANDLERS, (django, lean), strict=True))
    for number in range(REQUESTS):
        server.execute(f"DROP SCHEMA mark_{number}")


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("way", ["plain", "stream", "synchronous"])
def test_no_request_finds_what_another_left(workers, handler, way):
    worker = workers[handler]
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = [*pool.map(worker.request, [f"/{way}?{number}" for number in range(REQUESTS)])]
    wrong = [(status, body) for status, body, _ in answers if status != 200 or not body.endswith(b"alone")]
    assert not wrong, (wrong[:3], worker.log()[-3000:])


def test_requests_that_wait_delay_no_page(workers):
    def measure(worker):
        with ThreadPoolExecutor(SLEEPING) as pool:
            sleeping = [pool.submit(worker.request, "/sleeping") for _ in range(SLEEPING)]
            time.sleep(0.5)  # until they sleep
            took = []
            for _ in range(20):
                began = time.perf_counter()
                assert worker.request("/page")[0] == 200
                took.append(time.perf_counter() - began)
            assert {one.result()[1] for one in sleeping} == {b"woke up"}
        return statistics.median(took)

    seconds = {handler: measure(worker) for handler, worker in workers.items()}
    print(seconds)
    assert seconds["lean"] < 2 * seconds["django"] + 0.1, seconds
