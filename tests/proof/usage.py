"""Processor time that a state directory's machines have used, by their control groups."""

import json
from pathlib import Path


def cgroup2():
    """Where the unified hierarchy is mounted: cpu.stat is there also without its controllers."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def machines_cpu(state):
    """Seconds of user and system time since each machine of this environment booted; 0 without one."""
    try:
        own = json.loads((Path(state) / "machines.json").read_text())["id"]
        files = list(cgroup2().glob(f"pergola-{own}-*/cpu.stat"))
        return sum(int(file.read_text().split()[1]) for file in files) / 1e6
    except (OSError, ValueError, KeyError, AttributeError):
        return 0.0
