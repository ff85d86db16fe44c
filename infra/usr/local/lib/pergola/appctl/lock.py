"""The lock that a deploy, a rollback and a restart of the application need, one at a time."""

import fcntl
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from .config import Config
from .system import CommandError

LEASE = 60  # seconds within which whoever holds the lock over a connection says that it still lives


@contextmanager
def locked(config: Config, who: str, wait: float) -> Iterator[None]:
    """CommandError: who holds it since when, if it is not free within `wait` seconds."""
    path = config.runtime_directory / "deploy.lock"
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
                raise CommandError(file.read().strip() or "held by a program that gave no name") from None
            time.sleep(0.1)


def hold(config: Config, who: str) -> None:
    """Hold it for as long as a line comes on standard input at least once in LEASE seconds.

    A deploy that was killed, or whose machine is gone, sends none, and the lock is free.
    """
    with locked(config, who, wait=3):
        print("held", flush=True)
        while select.select([sys.stdin], [], [], LEASE)[0] and sys.stdin.readline():
            pass
