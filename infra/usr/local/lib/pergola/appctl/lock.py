"""Three locks of a host: one deploy (or rollback, or restart) at a time, one change, and one build.

The first is held during a whole deploy, which is many commands. The others are held by each command that
changes something: where the connection of a deploy broke, its last command still runs, and the next deploy
waits for it. A build has a lock of its own, as a rollback has no need to wait for one.
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

CHANGE = 600  # seconds to wait for another command; uv gives up on a network much earlier
LEASE = 60  # seconds without a line on standard input after which the lock is released


class LockedError(CommandError):
    """Another process has the lock: the text says which, and since when."""


@contextmanager
def only_one(kind: str, config: Config, who: str) -> Iterator[None]:
    """`kind`: change or build. LockedError: another command does not end."""
    with locked(config.runtime_directory / f"{kind}.lock", who, CHANGE):
        yield


@contextmanager
def one_deploy(config: Config, who: str, wait: float) -> Iterator[None]:
    """LockedError: it is not free within `wait` seconds."""
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
                raise LockedError(file.read().strip() or "a process that did not give its name") from None
            time.sleep(0.1)


def hold(config: Config, who: str) -> None:
    """Hold the lock while a line arrives on standard input at least once in LEASE seconds.

    So the lock is free again if the deploy is killed, or its machine or connection is gone.
    """
    with one_deploy(config, who, wait=3):
        print("held", flush=True)
        while select.select([sys.stdin], [], [], LEASE)[0] and sys.stdin.readline():
            pass
