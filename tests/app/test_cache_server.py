"""The cache behind two real workers and a real Redis: askers of different processes, and one computation."""

import itertools
import json

import pytest
from app.servers import ROOT, gunicorn, read, send
from waiting import wait_until


@pytest.fixture(scope="module")
def server(redis, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "web.sock"
    env = {"REDIS_URL": redis}
    with gunicorn(path, "config.asgi:application", "-w", "2", cwd=ROOT / "app", env=env) as running:
        workers = set()

        def both():
            workers.add(ask(running, "/lab/async/")["process"])
            return len(workers) == 2

        wait_until(both, "both workers")
        yield running


def parsed(answer, server):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), (head, body, server.log())
    return json.loads(body)


def ask(server, path):
    return parsed(server.get(path), server)


def together(server, path, count):
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        send(connection, path)
    answers = []
    for connection in connections:
        with connection:
            answers.append(parsed(read(connection), server))
    return answers


def test_of_many_askers_in_two_processes_one_computes_and_the_others_wait(server):
    names = (f"together{number}" for number in itertools.count())

    def in_both():
        """Which worker takes a connection is the kernel's choice."""
        answers = together(server, f"/cache/value?name={next(names)}&seconds=1", 12)
        return len({answer["process"] for answer in answers}) == 2 and answers

    answers = wait_until(in_both, "both workers to take part")
    assert sorted({answer["outcome"] for answer in answers}) == ["computed", "waited"]
    (computed,) = {json.dumps(answer["computed"], sort_keys=True) for answer in answers}
    assert [answer["outcome"] for answer in answers].count("computed") == 1
    end = json.loads(computed)["ended"]
    assert all(answer["began"] < end < answer["ended"] for answer in answers)


def test_a_hit_begins_after_the_computation_that_it_hands_out(server):
    first = ask(server, "/cache/value?name=again&seconds=0")
    second = ask(server, "/cache/value?name=again&seconds=0")
    assert (first["outcome"], second["outcome"]) == ("computed", "hit")
    assert second["computed"] == first["computed"]
    assert second["computed"]["ended"] < second["began"]


def test_the_cached_page_is_the_same_from_whichever_worker(server):
    first = ask(server, "/cache/page?seconds=0&for=all")
    for _ in range(4):
        assert ask(server, "/cache/page?seconds=0&for=all") == first
