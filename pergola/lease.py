"""A host's deploy lock, held for as long as a playbook runs, however the playbook ends.

The playbook's action `deploy_lock` calls take(), which starts `pergola lease` beside the playbook. That
process keeps the host's lock program running over a connection of its own. Within a second after the playbook
has ended, killed or not, the lock is free. Source: flock(1).
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from typing import NamedTuple, NoReturn

# The host's program: it prints "held", or who holds the lock since when, and holds it while lines arrive.
LOCK = ["appctl", "lock"]
BEAT = 5  # seconds between two lines
LOOK = 0.25  # seconds between two looks at the playbook


class Lease(NamedTuple):
    answer: str  # of the host; "held" if the lock was taken
    holder: int  # the process that holds it, on this machine


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def take(login: list[str], who: str, playbook: int) -> Lease:
    """Ask for a host's lock in the name of `who`, to be released when the process `playbook` has ended.

    ``login``: the words of the ssh command that logs in to the host, which end with the host's name.
    """
    reach = [*login[:-1], "-o", "ServerAliveInterval=15", login[-1]]
    asked = shlex.join(["sudo", "-n", *LOCK, who])
    held = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "pergola", "lease", str(playbook), *reach, asked],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C ends the playbook; the lease ends because of that
    )
    assert held.stdout is not None  # noqa: S101 - it is a pipe
    said = []
    for line in held.stdout:  # a host may print a banner first
        said.append(line.strip())
        if said[-1] == "held":
            return Lease("held", held.pid)
    return Lease(" ".join(said).removeprefix("appctl lock: "), held.pid)


def hold(pid: int, command: list[str]) -> NoReturn:
    """Run a command for as long as a process lives, and exit with its status.

    The command gets a line on its standard input every few seconds, and the input's end when the process has
    ended: a lease, so that the host also notices a broken connection.
    """
    held = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603
    assert held.stdin is not None  # noqa: S101 - it is a pipe
    beat = 0.0
    with contextlib.suppress(BrokenPipeError), held.stdin as lease:
        while alive(pid) and held.poll() is None:
            if time.monotonic() >= beat:
                lease.write(b"\n")
                lease.flush()
                beat = time.monotonic() + BEAT
            time.sleep(LOOK)
    sys.exit(held.wait())
