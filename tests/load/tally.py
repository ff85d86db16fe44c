"""What was sent, what came of it, and the evidence of what did not."""

import time
from collections import Counter

KEPT = 20  # pieces of evidence a reason; the counts go on


def now():
    return time.strftime("%H:%M:%S", time.gmtime()) + f".{time.time() % 1:.3f}"[2:]


class Tally:
    def __init__(self, kind):
        self.kind = kind
        self.counts = Counter()
        self.reasons = Counter()
        self.evidence = []
        self.slowest = {}

    def __getitem__(self, name):
        return self.counts[name]

    def add(self, name, count=1):
        self.counts[name] += count

    def bad(self, name, reason, **what):
        """Something that must not happen, with all that is known about it."""
        self.counts[name] += 1
        self.reasons[f"{name}: {reason}"] += 1
        if self.reasons[f"{name}: {reason}"] <= KEPT:
            self.evidence.append({"at": now(), "kind": self.kind, "what": name, "reason": reason, **what})

    def took(self, what, seconds):
        self.slowest[what] = max(self.slowest.get(what, 0), seconds)

    def line(self, *names):
        said = ", ".join(f"{self.counts[name]:,} {name}" for name in names)
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in self.reasons.most_common(5))
        return f"{self.kind}: {said}" + (f" -- {reasons}" if reasons else "")

    def report(self):
        return {
            "counts": dict(self.counts),
            "reasons": dict(self.reasons),
            "slowest": {what: round(seconds, 3) for what, seconds in self.slowest.items()},
            "evidence": self.evidence,
        }


def reason_of(error):
    """An exception's name, and that of what it came from: httpx's own say little."""
    names = [type(error).__name__]
    while (error := error.__cause__ or error.__context__) is not None and len(names) < 4:
        names.append(type(error).__name__)
    return " < ".join(dict.fromkeys(names))
