"""The result of a part: by its exit status, and by what its tests wrote (checks.py).

Every part depends on this file: with other rules, what was proved may not be.
"""

import contextlib
import json
from dataclasses import dataclass, field

from .digest import matches

SLOWEST = 5


@dataclass
class Result:
    """The result of a part. `passed` and `failed` count tests, or 1 for a part that is one command."""

    seconds: float = 0
    cpu: float = 0
    passed: int = 0
    failed: int = 0
    slowest: list = field(default_factory=list)
    reason: str = ""  # of a failure, if no test failed

    @property
    def verdict(self):
        return "passed" if self.passed and not self.failed and not self.reason else "failed"


def read_checks(path):
    """The lines that the tests wrote; the last one may be torn where they were killed."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def judge(part, code, lines, tree):
    """`tree` is the working tree: what git does not know may be opened by any test."""
    tests = [line for line in lines if "id" in line]
    opened = {name for line in lines for name in line.get("opened", ())}
    passed = sum(test["outcome"] == "passed" for test in tests)
    failed = sum(test["outcome"] == "failed" for test in tests)
    reason = ""
    if not part.counts:
        passed = int(code == 0)
    elif not passed and not failed:
        reason = "no test was counted"
    if code and not failed:
        reason = f"{' '.join(part.command)} exited with status {code}"
    unlisted = sorted(name for name in opened & set(tree) if not matches(name, part.files))
    if unlisted:
        reason = f"it opens {', '.join(unlisted)}: add that to its files in tests/proof/parts.py"
    slowest = sorted(tests, key=lambda test: -test["seconds"])[:SLOWEST]
    slowest = [[test["id"], test["seconds"], test["cpu"]] for test in slowest]
    return Result(passed=passed, failed=failed, slowest=slowest, reason=reason)
