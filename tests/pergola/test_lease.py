"""The lease of a host's deploy lock: it lasts as long as a process, and ends with it."""

import os
import subprocess
import sys

import pytest
from waiting import wait_until

from pergola import lease

OTHER = "rollback by lee@desk since 2026-01-01T00:00:00Z"
HOLD = [sys.executable, "-m", "pergola", "lease"]


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "600"]) as one:
        yield one
        one.kill()


@pytest.fixture
def login(tmp_path):
    """Makes words of a login whose host runs this script instead of the lock program."""

    def make(script):
        program = tmp_path / "ssh"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "$0.called"\n{script}\n')
        program.chmod(0o755)
        return [str(program), "-o", "BatchMode=yes", "ops@app"]

    return make


def test_the_command_gets_lines_until_the_process_has_ended(process, tmp_path):
    script = (
        f"read -r line; touch {tmp_path}/first; while read -r line; do :; done; touch {tmp_path}/end; exit 3"
    )
    held = subprocess.Popen([*HOLD, str(process.pid), "sh", "-c", script])
    wait_until((tmp_path / "first").exists, "the first line")
    assert not (tmp_path / "end").exists()
    process.kill()
    process.wait()
    assert held.wait(10) == 3
    assert (tmp_path / "end").exists()


def test_it_ends_with_its_command(process):
    assert subprocess.run([*HOLD, str(process.pid), "sh", "-c", "exit 5"], check=False).returncode == 5


def test_a_lock_that_is_taken_is_held_until_the_playbook_has_ended(process, login, tmp_path):
    answer, holder = lease.take(login("echo held; exec cat >/dev/null"), "deploy by kim@desk", process.pid)
    assert answer == "held"
    assert lease.alive(holder)
    called = (tmp_path / "ssh.called").read_text().splitlines()
    assert called[-4:-1] == ["-o", "ServerAliveInterval=15", "ops@app"]
    assert called[-1] == "sudo -n appctl lock 'deploy by kim@desk'"
    process.kill()
    process.wait()
    wait_until(lambda: os.waitpid(holder, os.WNOHANG)[0] == holder, "the lease to end")
    assert not lease.alive(holder)


def test_a_hosts_banner_is_no_answer(process, login):
    host = login("echo Authorized use only >&2; echo; echo held; while read -r line; do :; done")
    assert lease.take(host, "deploy by kim@desk", process.pid).answer == "held"


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (
            "echo rollback by lee@desk since 2026-01-01T00:00:00Z; exit 1",
            "rollback by lee@desk since 2026-01-01T00:00:00Z",
        ),
        ("echo sudo: a password is required >&2; exit 1", "sudo: a password is required"),
        ("echo one; echo two >&2; exit 1", "one two"),
        ("exit 255", ""),
    ],
)
def test_a_refusal_is_passed_on(process, login, script, answer):
    assert lease.take(login(script), "deploy by kim@desk", process.pid).answer == answer
