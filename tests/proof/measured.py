"""Run a command and write the processor time of all its processes: measured.py FILE COMMAND ...

Machines are supervised by processes that leave their parent. As a subreaper this process inherits them, and
collects them as they end, so that what they used counts.
"""

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
    # the command gets the same signal, as a member of this process group, and decides when it ends
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)
    process = subprocess.Popen(command, restore_signals=True)
    pid = 0
    while pid != process.pid:
        pid, status = os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(target).write_text(f"{used.ru_utime + used.ru_stime:.1f}\n")
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)  # Popen would look for a child that is gone


if __name__ == "__main__":
    main()
