"""A Redis that is suspended: what a request that orders a job waits for."""

import os
import signal
import subprocess
import sys

import pytest
from app.servers import PYTHONPATH, ROOT, parts, redis_program
from waiting import wait_until

SEND = """
import time
import config.asgi  # as a server of requests
from config.celery import app
from kombu.exceptions import OperationalError

def send():
    began = time.monotonic()
    try:
        app.tasks["jobs.crunch"].apply_async(["number", "text"], retry=False)
        print("sent", flush=True)
    except OperationalError:
        print(time.monotonic() - began, flush=True)

send()
input()
send()
send()
"""


@pytest.fixture
def queue(tmp_path, redis):
    """The process of a Redis, and its URL. `redis` installs the program."""
    path = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path]
    process = subprocess.Popen(command, executable=redis_program(), stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "Redis")
        yield process, f"unix://{path}"
    finally:
        process.kill()
        process.wait()


def test_sending_a_job_waits_less_than_a_second_for_a_suspended_redis(queue, tmp_path, capsys):
    process, url = queue
    sender = subprocess.Popen(
        [sys.executable, "-c", SEND],
        cwd=ROOT / "app",
        env=os.environ | PYTHONPATH | parts(tmp_path / "db.sqlite3", url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sender.stdout.readline() == "sent\n"
        process.send_signal(signal.SIGSTOP)
        seconds = [float(line) for line in sender.communicate("\n", timeout=60)[0].split()]
    finally:
        sender.kill()
        sender.wait()
    with capsys.disabled():
        print(f"\n  waited {seconds[0]:.2f} s, then {seconds[1]:.2f} s", end="")
    assert max(seconds) < 5  # five times as long as promised; with the workers' limit it is ten seconds
