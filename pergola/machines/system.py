"""Commands, files and locks, as the other modules use them."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

VAGRANT = "use `vagrant up`, which makes the same machine in a hypervisor"


def attempt(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "check": False} | options
    done: subprocess.CompletedProcess[str] = subprocess.run(command, **options)  # noqa: S603 - our own commands
    return done


def run(*command: str, **options: Any) -> str:
    done = attempt(*command, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def wait_for(condition: Callable[[], T], seconds: float, step: float = 0.1) -> T:
    """Return the first true value of `condition`, or its last value when the time is up."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(step)
    return value


def write(path: Path, text: str) -> bool:
    """Replace a file by rename if its text differs. Return whether it did."""
    if path.is_file() and path.read_text() == text:
        return False
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.replace(path)
    return True


@contextlib.contextmanager
def locked(path: Path, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on a directory, or on a file, which is created if it does not exist."""
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, mode)
        yield
    finally:
        os.close(file)


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return path if path.exists() else existing(path.parent)


def remove_tree(path: Path) -> None:
    """Delete a directory tree; refuse a link, and a tree that contains a mount point."""
    if path.is_symlink() or path.resolve() != path:
        sys.exit(f"{path} is a symbolic link: remove it by hand.")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if inside := [mount for mount in mounts if Path(mount).is_relative_to(path)]:
        sys.exit(f"{inside[0]} is a mount point: unmount it first.")
    run("rm", "-rf", "--one-file-system", "--", str(path))
