"""Run a command for as long as a process lives: hold.py PID COMMAND ...

The command gets a line on its standard input every few seconds, and the input's end when the process is gone:
a lease, so that the far end of a broken connection notices as well.
"""

import contextlib
import os
import subprocess
import sys
import time

BEAT = 5  # seconds between lines
LOOK = 0.25  # seconds between looks at the process


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main():
    pid, command = int(sys.argv[1]), sys.argv[2:]
    held = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603
    beat = 0
    with contextlib.suppress(BrokenPipeError), held.stdin as lease:
        while lives(pid) and held.poll() is None:
            if time.monotonic() >= beat:
                lease.write(b"\n")
                lease.flush()
                beat = time.monotonic() + BEAT
            time.sleep(LOOK)
    sys.exit(held.wait())


if __name__ == "__main__":
    main()
