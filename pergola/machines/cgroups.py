"""Control groups of both hierarchies, where they are mounted, and how they are removed."""

import contextlib
import os
import sys
from functools import partial
from pathlib import Path

from pergola.machines.system import wait_for


def mounts() -> dict[Path, list[str]]:
    """Where control groups are mounted, and the mount options, which name the controllers; cgroup2 first."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [
        (kind, Path(where), options) for _, where, kind, options, *_ in lines if kind.startswith("cgroup")
    ]
    return {where: options.split(",") for _, where, options in sorted(found, reverse=True)}


def unified() -> Path | None:
    """The mount point of cgroup2."""
    return next((path for path in mounts() if (path / "cgroup.controllers").exists()), None)


def group(name: str) -> Path:
    mount = unified()
    if mount is None:
        sys.exit("This host has no cgroup2 file system.")
    return mount / name


def memory_group(name: str) -> Path:
    """The group that limits memory: that of the old hierarchy where the host has one, or the unified one."""
    old = [where for where, options in mounts().items() if "memory" in options]
    return old[0] / name if old else group(name)


def processes(top: Path) -> list[str]:
    found: list[str] = []
    # os.walk passes over a directory that vanishes meanwhile, as a unit's does when it ends
    for directory, _, _ in os.walk(top):
        with contextlib.suppress(OSError):
            found += Path(directory, "cgroup.procs").read_text().split()
    return found


def kill(top: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (top / "cgroup.kill").write_text("1")


def join(top: Path) -> None:
    """Move this process into the group."""
    (top / "cgroup.procs").write_text(str(os.getpid()))


def remove(top: Path) -> None:
    if top.exists():
        for directory in [*sorted(top.rglob("*/"), reverse=True), top]:
            # a group is busy for a moment after its last process has ended
            wait_for(partial(removed, directory), 5)


def removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()
