"""The clients that count what a deploy loses: nothing on a good site, and each kind on a bad one."""

import json
import signal
import socket
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from app.servers import serving
from load.running import running
from waiting import wait_until

OPTIONS = ["--users", "a:b,c:d", "--addresses", "127.0.0.2,127.0.0.3", "--rooms", "2"]
OPTIONS += ["--http", "10", "--websockets", "6", "--visitors", "3", "--settle", "4", "--ramp", "0.2"]
OPTIONS += ["--pause", "0.1", "--message-pause", "0.2", "--job-pause", "0.1"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def site(folder, port, faults=""):
    arguments = ["uvicorn", "site_with_faults:application", "--port", str(port), "--log-level", "warning"]
    here = Path(__file__).parent
    with serving(arguments, folder / "site", cwd=here, env={"FAULTS": faults}) as server:

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, f"the site:\n{server.log()}")
        yield server


def load_on(folder, port):
    return running(folder, "--url", f"http://127.0.0.1:{port}", *OPTIONS)


def happened(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/happened", timeout=20) as answer:
        return json.load(answer)


def at_work_for(load, seconds):
    with pytest.raises(subprocess.TimeoutExpired):
        load.process.wait(seconds)


def line(said, kind):
    return next(one for one in said.splitlines() if one.startswith(f"{kind}: "))


def test_a_site_that_loses_nothing_is_said_to_lose_nothing(tmp_path):
    port = free_port()
    with site(tmp_path, port), load_on(tmp_path, port) as load:
        at_work_for(load, 1)
        load.stop()
    said, counts = load.said, load.counts
    assert load.lost_nothing, said
    assert counts["requests"]["sent"] == counts["requests"]["answered"] > 0
    assert counts["posts"]["accepted"] > 0
    assert counts["messages"]["sent"] == counts["messages"]["stored"] > 0
    # each message came to the three of its room
    assert counts["messages"]["received"] == 3 * counts["messages"]["sent"]
    assert counts["jobs"]["sent"] == counts["jobs"]["done"] > 0
    assert line(said, "requests").endswith(", 0 lost")
    assert line(said, "messages").endswith("received, 0 missing, 0 doubled")
    assert line(said, "jobs").endswith(", 0 lost, 0 doubled")


@pytest.mark.parametrize(
    "faults",
    [
        {
            "error": ("requests", "lost: status 500"),
            "post lost": ("posts", "missing: "),
            "message lost": ("messages", "missing: never came"),
            "message unanswered": ("WebSockets", "lost: closed with 1011"),
            "job lost": ("jobs", "lost: failed, 0 effects"),
        },
        {
            "message sent twice": ("messages", "doubled: came twice"),
            "message stored twice": ("messages", "doubled: stored under two numbers"),
            "job twice": ("jobs", "doubled: ordered once, and there twice"),
            "effect twice": ("jobs", "doubled: 2 effects"),
        },
    ],
    ids=["lost", "doubled"],
)
def test_each_fault_is_counted_under_its_name(tmp_path, faults):
    port = free_port()
    with site(tmp_path, port, ",".join(faults)), load_on(tmp_path, port) as load:
        wait_until(lambda: all(happened(port).get(fault, 0) > 1 for fault in faults), "each of the faults")
        load.stop()
    assert not load.lost_nothing
    for kind, reason in faults.values():
        found = [count for one, count in load.reasons[kind].items() if one.startswith(reason)]
        assert found, f"{reason} was not seen\n{load.said}"
        name = reason.partition(":")[0]
        assert load.counts[kind][name] >= sum(found)
        assert f"{load.counts[kind][name]} {name}" in line(load.said, kind)
        assert any(piece["kind"] == kind and piece["what"] == name for piece in load.evidence)


def test_a_server_that_is_killed_loses_what_was_under_way(tmp_path):
    port = free_port()
    with site(tmp_path, port) as server, load_on(tmp_path, port) as load:
        at_work_for(load, 1)
        server.signal(signal.SIGKILL)
        server.exit_code()
        at_work_for(load, 1)
        load.stop()
    said, counts = load.said, load.counts
    assert not load.lost_nothing
    assert counts["requests"]["lost"] > 0, said
    assert counts["requests"]["sent"] == counts["requests"]["answered"] + counts["requests"]["lost"]
    assert counts["WebSockets"]["lost"] >= 6, said
    assert "ConnectError" in line(said, "requests")
