"""The lab behind its real server, with one worker: whoever is slow there has but one neighbourhood."""

import concurrent.futures
import json
import os
import signal
import time
from pathlib import Path

import pytest
from app.servers import ROOT, gunicorn, read, send
from waiting import wait_until

SLOW = 0.4


def serve(directory):
    return gunicorn(directory / "web.sock", "config.asgi:application", cwd=ROOT / "app")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("lab")) as running:
        assert ask(running, "/livez") == {"live": True}
        yield running


def ask(server, path):
    """The monotonic clock is the machine's, so that what a client notes and what a view says compare."""
    head, _, body = server.get(path).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), (head, body, server.log())
    return json.loads(body)


def body(connection):
    with connection:
        return json.loads(read(connection).partition(b"\r\n\r\n")[2])


def meanwhile(server, path):
    """A slow request, and the fast ones that were sent until it was answered, none waiting for another."""
    sent = []
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        slow = thread.submit(ask, server, path)
        while not concurrent.futures.wait([slow], timeout=0.03).done:
            sent.append((time.monotonic(), server.connect()))
            send(sent[-1][1], "/lab/async/")
    return slow.result(), [body(connection) | {"sent": at} for at, connection in sent]


def inside(slow, fast):
    return [one for one in fast if slow["began"] < one["sent"] and one["ended"] < slow["ended"]]


@pytest.mark.parametrize(
    "path",
    [
        f"/lab/async/sleep/?seconds={SLOW}",
        f"/lab/sync/sleep/?seconds={SLOW}",
        f"/lab/task/?kind=to-thread&seconds={SLOW}",
        f"/lab/task/?kind=cpu-process&seconds={SLOW}",
    ],
)
def test_the_fast_view_answers_while_the_slow_one_waits(server, path):
    slow, fast = meanwhile(server, path)
    answered = inside(slow, fast)
    assert answered
    (worker,) = {one["process"] for one in fast}
    assert (slow["process"] == worker) == ("cpu-process" not in path)


def test_behind_one_blocking_call_in_an_async_view_the_fast_view_waits_for_its_end(server):
    slow, fast = meanwhile(server, f"/lab/task/?kind=blocking&seconds={SLOW}")
    assert {slow["process"]} == {one["process"] for one in fast}
    assert slow["thread"] in {one["thread"] for one in fast}
    assert not inside(slow, fast)
    # Whoever asked during the call was served after it.
    assert [one for one in fast if slow["began"] < one["sent"] < slow["ended"] <= one["began"]]


def test_many_sleeping_async_requests_share_one_thread_and_the_fast_view_answers_among_them(server):
    connections = [server.connect() for _ in range(200)]
    for connection in connections:
        send(connection, "/lab/async/sleep/?seconds=1.5")
    fast = ask(server, "/lab/async/")
    sleeping = [body(connection) for connection in connections]
    assert {one["thread"] for one in sleeping} == {fast["thread"]}
    assert sum(one["began"] < fast["began"] and fast["ended"] < one["ended"] for one in sleeping) > 20


def stat(pid):
    """State, parent and process group, of what runs or is a zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return ["Z", "0", "0"]


def alive(pid):
    return stat(pid)[0] != "Z"


def group(leader):
    stats = (stat(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [state for state, _, group in stats if state != "Z" and int(group) == leader]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_the_process_that_computes_ends_with_its_worker(tmp_path, killed):
    with serve(tmp_path) as server:
        worker, child = ask(server, "/lab/async/")["process"], computing(server)
        assert child != worker
        assert alive(child)
        if killed:
            os.kill(worker, signal.SIGKILL)
        else:
            server.signal(signal.SIGTERM)
        wait_until(lambda: not alive(child), "the worker's child to end")
        if not killed:
            assert server.exit_code() == 0
            wait_until(lambda: not group(server.process.pid), "all of the group to end")
            assert "leaked" not in server.log()


def test_a_process_that_was_killed_is_replaced(server):
    first = computing(server)
    os.kill(first, signal.SIGKILL)
    assert computing(server) not in (first, ask(server, "/lab/async/")["process"])


def computing(server):
    """Asked again where it is another's turn."""
    path = "/lab/task/?kind=cpu-process&seconds=0"
    answer = wait_until(lambda: (a := server.get(path)).startswith(b"HTTP/1.1 200") and a, "its turn")
    return json.loads(answer.partition(b"\r\n\r\n")[2])["process"]
