"""make dev's program, as a person starts and stops it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from app.servers import PATIENCE, ROOT
from waiting import wait_until
from websockets.asyncio.client import connect

DEV = [sys.executable, str(ROOT / "app/dev.py")]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def in_group(group):
    """The processes of a process group, zombies aside."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(stat.parent.name)
    return found


@pytest.fixture
def dev(tmp_path):
    """Started in a process group of its own, which is what Ctrl-C reaches in a terminal."""
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            DEV,
            env=os.environ
            | {
                "PORT": str(port),
                "DEV_STATE": str(tmp_path / "state"),
                "DJANGO_SETTINGS_MODULE": "another.project",
            },
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    process.url, process.log = f"http://localhost:{port}", log.read_text
    try:
        # it migrates and seeds first
        wait_until(
            lambda: process.poll() is not None or "Ctrl-C" in log.read_text(), log.read_text, seconds=120
        )
        yield process
    finally:
        if in_group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own server
        return answer.read().decode()


async def echo(url):
    async with connect(f"{url.replace('http', 'ws')}/ws/echo/", origin=url) as client:
        await client.send("안녕")
        return await asyncio.wait_for(client.recv(), PATIENCE)


def test_the_whole_site_runs_without_a_service_and_leaves_nothing_behind(dev):
    assert dev.poll() is None, dev.log()
    assert "Async Django" in get(dev.url)
    assert re.search("[가-힣]", get(f"{dev.url}/posts/"))
    answer = json.loads(get(f"{dev.url}/dashboard/data?mode=async&count=2&delay=0"))
    assert [call["outcome"] for call in answer["calls"]] == ["ok", "ok"]
    assert "--leaf" in get(f"{dev.url}/static/core/site.css")
    assert asyncio.run(echo(dev.url)) == "안녕"

    again = subprocess.run(
        DEV,
        env=os.environ | {"PORT": dev.url.rpartition(":")[2]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert again.returncode == 1
    assert re.fullmatch(r"Port \d+ is not free \(.+\): make dev PORT=\d+\n", again.stderr)

    dev.send_signal(signal.SIGINT)  # to it alone: what it started, it stops
    assert dev.wait(PATIENCE) == 0, dev.log()
    wait_until(lambda: not in_group(dev.pid), "the end of all that it started")
    assert "Traceback" not in dev.log()
