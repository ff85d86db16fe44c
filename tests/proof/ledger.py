"""tests/ledger.json: which parts passed, on which files, when, and how long they took.

{"parts": {"app": {
    "digest": "5a1f...",           what the part depends on (digest.py)
    "packages": "03b1...",         the base image's Debian packages, for a part that needs a machine
    "commit": "1a2b3c4d...",       HEAD at that time
    "date": "2026-11-30T02:00:00Z",
    "seconds": 48, "cpu": 96,      wall clock, and processor time of all its processes
    "speed": 1.0,                  of the machine (calibration.py)
    "passed": 1000, "failed": 0,
    "verdict": "passed",           or "failed"
    "slowest": [["tests/app/test_x.py::test_y", 4.8, 0.3]]}}}    seconds, processor time
"""

import contextlib
import fcntl
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta

from .digest import ROOT, base_packages, commit_tree, digest, files_of, git, working_tree
from .parts import PARTS

PATH = ROOT / "tests/ledger.json"
VALID_DAYS = 21  # Debian, PyPI and the kernel change without a change of ours
CLOCK = "%Y-%m-%dT%H:%M:%SZ"
# Two days: the clocks of two machines differ, and no entry should be valid for longer than it says.
FUTURE = timedelta(days=2)
TYPES = {
    "digest": str,
    "commit": str,
    "date": str,
    "seconds": (int, float),
    "cpu": (int, float),
    "speed": (int, float),
    "passed": int,
    "failed": int,
    "verdict": str,
    "slowest": list,
}


def read(path=None):
    """{part: entry}. A file that cannot be read counts as empty, with one line: every part runs again."""
    path = path or PATH
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_text())["parts"]
        if not isinstance(parts, dict):
            raise TypeError("parts is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path} cannot be read ({error!r}): every part counts as never run", file=sys.stderr)
        return {}
    return parts


def record(name, entry, path=None):
    """Write one part's entry. The file is replaced whole, so that an interrupted run leaves a valid one.

    What could not be read is kept beside it, as `ledger.json.unreadable`.
    """
    path = path or PATH
    with locked(path.parent):
        before = read(path)
        if not before and path.exists():
            path.replace(path.with_name(f"{path.name}.unreadable"))
        parts = before | {name: entry}
        known = [part.name for part in PARTS]
        ordered = {name: parts[name] for name in known if name in parts}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in ordered.items())
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(f'{{"parts": {{\n{lines}\n}}}}\n')
        aside.replace(path)


@contextlib.contextmanager
def locked(folder):
    """Two runs in one checkout, with a state directory each, would lose each other's entries."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def malformed(entry):
    """What is wrong with an entry's form; empty where nothing is."""
    if not isinstance(entry, dict):
        return "the entry is no object"
    for name, kind in TYPES.items():
        if not isinstance(entry.get(name), kind) or isinstance(entry[name], bool):
            return f"{name} is missing or malformed"
    if not re.fullmatch(r"[0-9a-f]{64}", entry["digest"]):
        return "digest is malformed"
    if not re.fullmatch(r"[0-9a-f]{40}", entry["commit"]):
        return "commit is malformed"
    try:
        datetime.strptime(entry["date"], CLOCK)  # noqa: DTZ007  the format says Z
    except ValueError:
        return "date is malformed"
    if not all(well_formed(test) for test in entry["slowest"]):
        return "slowest is malformed"
    if entry.get("packages") and not re.fullmatch(r"[0-9a-f]{16}", str(entry["packages"])):
        return "packages is malformed"
    return ""


def well_formed(test):
    return isinstance(test, list) and [type(one) in (int, float) for one in test] == [False, True, True]


def age(entry):
    return datetime.now(UTC) - datetime.strptime(entry["date"], CLOCK).replace(tzinfo=UTC)


class Ledger:
    """The recorded entries, judged against the working tree as it is now."""

    def __init__(self, path=None):
        self.entries = read(path)
        self.tree = working_tree()
        self.packages = base_packages()
        self.ancestors = set(git("rev-list", "HEAD").split())

    def state(self, part):
        """("proved", "stale", "failed" or "never run", and the reason in a few words)."""
        if not part.files:
            return (
                "stale",
                "it names no files in tests/proof/parts.py, so its result cannot be checked",
            )
        if part.name not in self.entries:
            return "never run", ""
        entry = self.entries[part.name]
        if wrong := malformed(entry):
            return "stale", wrong
        if entry["commit"] not in self.ancestors:
            return "stale", f"commit {entry['commit'][:7]} is no ancestor of HEAD"
        if age(entry) > timedelta(days=VALID_DAYS):
            return "stale", f"older than {VALID_DAYS} days"
        if age(entry) < -FUTURE:
            return "stale", "its date is in the future"
        packages = entry.get("packages", "")
        if part.place != "here" and not packages:
            return "stale", "it does not name the base image's Debian packages"
        if part.place != "here" and self.packages and packages != self.packages:
            return "stale", "the base image's Debian packages changed"
        if entry["digest"] != digest(part, self.tree, packages):
            return "stale", self.changes(part, entry["commit"])
        if entry["verdict"] != "passed" or entry["failed"]:
            counted = f"{entry['failed']} of {entry['failed'] + entry['passed']}"
            return "failed", counted if entry["failed"] else entry.get("reason", "")
        if entry["passed"] < 1:
            return "stale", "it counted no test"
        return "proved", ""

    def changes(self, part, commit):
        before, now = files_of(part, commit_tree(commit)), files_of(part, self.tree)
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if not changed:
            return "how it is run changed, or files that were not committed then"
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        return f"{changed[0]}{more} changed"

    def stale(self, parts):
        return [part for part in parts if self.state(part)[0] != "proved"]


def show():
    """The lines of `make ledger`."""
    ledger = Ledger()
    yield f"{'part':16}{'state':11}{'age':>6}{'seconds':>9}{'passed':>8}  commit   reason"
    for part in PARTS:
        state, reason = ledger.state(part)
        entry = ledger.entries.get(part.name)
        if entry is None or malformed(entry):
            yield f"{part.name:16}{state:11}{'':6}{'':9}{'':8}  {'':7}  {reason}".rstrip()
            continue
        hours = int(age(entry).total_seconds() // 3600)
        old = f"{hours // 24} d" if hours >= 48 else f"{hours} h"
        yield (
            f"{part.name:16}{state:11}{old:>6}{entry['seconds']:9.0f}{entry['passed']:8}  "
            f"{entry['commit'][:7]}  {reason}"
        ).rstrip()
    for name in sorted(set(ledger.entries) - {part.name for part in PARTS}):
        yield f"{name:16}ignored: tests/proof/parts.py has no such part"
