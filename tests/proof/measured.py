"""Run a command and write the processor time of all its processes: measured.py FILE COMMAND ...

Machines are supervised by processes that leave their parent. As a subreaper this process inherits them when
their parent ends, so that what they used counts as soon as they have ended.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main():
    target, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command)
    # the command gets the same signal as a member of this process group, and decides when it ends
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)
    process.wait()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(target).write_text(f"{used.ru_utime + used.ru_stime:.1f}\n")
    sys.exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)


if __name__ == "__main__":
    main()
