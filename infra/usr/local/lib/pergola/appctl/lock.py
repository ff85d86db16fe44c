"""Three locks of a host: one deploy (or rollback, or restart) at a time, one change, and one build.

The first is held during a whole deploy, which is many commands. The others are held by each command that
changes something: if the connection of a deploy breaks, its last command continues, and the next deploy
waits for it. A build has its own lock, as a rollback does not need to wait for it.
"""

import fcntl
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from .config import Config
from .system import CommandError

CHANGE = 600  # seconds to wait for another command; uv's network timeouts are much shorter
LEASE = 60  # seconds without a line on standard input after which the lock is released


class LockedError(CommandError):
    """Another process holds the lock; the message names it and its start."""


@contextmanager
def only_one(kind: str, config: Config, who: str) -> Iterator[None]:
    """Hold the lock `kind` (change or build). LockedError: it is not free within CHANGE seconds."""
    with locked(config.runtime_directory / f"{kind}.lock", who, CHANGE):
        yield


@contextmanager
def one_deploy(config: Config, who: str, wait: float) -> Iterator[None]:
    """Hold the deploy lock. LockedError: it is not free within `wait` seconds."""
    with locked(config.runtime_directory / "deploy.lock", who, wait):
        yield


@contextmanager
def locked(path: Path, who: str, wait: float) -> Iterator[None]:
    with path.open("a+") as file:
        take(file, wait)
        file.truncate(0)
        file.write(f"{who} since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")
        file.flush()
        yield


def take(file: TextIO, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.seek(0)
                raise LockedError(file.read().strip() or "a process that wrote no name") from None
            time.sleep(0.1)


def hold(config: Config, who: str) -> None:
    """Hold the lock while a line arrives on standard input at least once in LEASE seconds.

    The lock is therefore released if the deploy is killed, or its machine or connection fails.
    """
    with one_deploy(config, who, wait=3):
        print("held", flush=True)
        while select.select([sys.stdin], [], [], LEASE)[0] and sys.stdin.readline():
            pass
