"""The load clients as a process of their own, beside whatever a test does to the servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

CLIENTS = Path(__file__).with_name("clients.py")
PATIENCE = 400  # the clients end by themselves long before


class Load:
    """Counts by kind, once it was stopped: `load.counts["requests"]["lost"]`."""

    def __init__(self, folder, *options):
        self.report = Path(folder, "load.json")
        self.process = subprocess.Popen(
            [sys.executable, CLIENTS, "--report", self.report, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # what is late by the clients' own fault would be counted as the server's
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)
        first = self.process.stdout.readline()
        if first != "at work\n":
            self.end()
            raise AssertionError(f"the load did not begin: {first}{self.process.stdout.read()}")

    def stop(self):
        """No more of anything; what is under way comes to its end, and is counted."""
        self.process.send_signal(signal.SIGTERM)
        self.said, _ = self.process.communicate(timeout=PATIENCE)
        self.lost_nothing = self.process.returncode == 0
        report = json.loads(self.report.read_text())
        self.counts = {kind: tally["counts"] for kind, tally in report.items()}
        self.reasons = {kind: tally["reasons"] for kind, tally in report.items()}
        self.evidence = [piece for tally in report.values() for piece in tally["evidence"]]
        return self

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(folder, *options):
    load = Load(folder, *options)
    try:
        yield load
    finally:
        load.end()
