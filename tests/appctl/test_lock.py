"""One deploy, rollback or restart at a time; the lock is free as soon as its holder is gone."""

import fcntl
import os
import subprocess
import sys

import pytest

from .conftest import LIBRARY


def hold(host, who):
    environment = os.environ | {"PYTHONPATH": str(LIBRARY)}
    command = [sys.executable, "-m", "appctl", "--config", host.file, "lock", who]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_the_second_hears_who_holds_it(host):
    with hold(host, "deploy by one") as first:
        assert first.stdout.readline() == "held\n"
        second = host.run("lock", "deploy by two", input="")
        assert second.returncode == 1
        assert second.stderr.startswith("appctl lock: deploy by one since 20")
        first.stdin.close()
        assert first.wait(10) == 0
    assert host.run("lock", "deploy by two", input="").stdout == "held\n"


def test_a_killed_holder_lets_go(host):
    with hold(host, "deploy by one") as first:
        assert first.stdout.readline() == "held\n"
        first.kill()
    assert host.run("lock", "deploy by two", input="").stdout == "held\n"


def test_changes_run_one_at_a_time(host):
    with (host.directory / "run/change.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("appctl build since yesterday\n")
        other.flush()
        assert host.run("releases").returncode == 0
        host.release("one")
        command = [sys.executable, "-m", "appctl", "--config", host.file, "prune", "1"]
        environment = os.environ | {"PYTHONPATH": str(LIBRARY)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1)
            fcntl.flock(other, fcntl.LOCK_UN)
            assert waiting.communicate(timeout=10)[0] == "removed one\n"
