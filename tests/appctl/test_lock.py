"""One deploy, rollback or restart at a time; the lock is free as soon as its holder is gone."""

import os
import subprocess
import sys

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
