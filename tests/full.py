"""Run every part of the tests, by hand, and keep the figures: `make test-full` -> tests/results/<date>.json

    {"date": "2026-11-20", "commit": "1a2b3c4",
     "machine": {"cores": 2, "memory_gb": 24, "kernel": "6.18.44", "system": "Debian GNU/Linux 12"},
     "parts": [{"target": "test-app", "seconds": 21, "ok": true, "passed": 109, "failed": 0, "skipped": 0}]}

A part that fails does not keep the others from running; the exit status says whether one did.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = [
    ("lint", {}),
    ("test-app", {}),
    ("test-config", {}),
    ("test-api", {}),
    ("test-migrations", {}),
    ("test-load", {}),
    ("test-replica", {}),
    ("test-lean", {"FULL": "1"}),
    ("test-releases", {"FULL": "1"}),
    ("test-servers", {}),
    ("test-machines", {}),
    ("test-your-app", {}),
    ("test-vagrant", {"FULL": "1"}),
    ("test-vagrant", {"PROVIDER": "libvirt"}),
    ("test-fresh", {}),
    ("test-fresh", {"RELEASES": "trixie"}),
]


def run(target, environment):
    """Run a make target, its output shown as it comes; count what pytest's last line says."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env=os.environ | {"CI": "true"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in process.stdout:
        print(line, end="", flush=True)
        if re.match(r"=* ?\d+ (passed|failed|skipped|error)", line):
            counts = {word: int((re.search(rf"(\d+) {word}", line) or [0, 0])[1]) for word in counts}
    process.wait()
    return {
        "target": " ".join([target, *environment.values()]),
        "seconds": round(time.monotonic() - started),
        "ok": process.returncode == 0,
    } | counts


def main():
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(memory / 2**30),
            "kernel": platform.release(),
            "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        },
        "parts": [],
    }
    path = ROOT / f"tests/results/{report['date']}.json"
    path.parent.mkdir(exist_ok=True)
    for target, environment in PARTS:
        report["parts"].append(run(target, environment))
        path.write_text(json.dumps(report, indent=2) + "\n")  # what a cut-off run leaves is true as well
    print(f"\n{path.relative_to(ROOT)}:")
    for part in report["parts"]:
        verdict = "ok" if part["ok"] else "FAILED"
        print(f"  {part['target']:14} {part['seconds']:5} s  {part['passed']:4} passed  {verdict}")
    sys.exit(not all(part["ok"] for part in report["parts"]))


if __name__ == "__main__":
    main()
