"""What make calls: .venv/bin/python -m tests.proof VERB"""

import argparse
import os
import sys

from . import ledger, table
from .digest import commit_tree, digest
from .parts import PARTS
from .runner import Runner, summary

README_PARTS = ("lint", "app", "config", "infra", "smoke", "browser")


def run(parts, write_ledger):
    if not parts:
        print("Nothing to run: every part is proved for these files (AGAIN=1 runs them all the same)")
        return 0
    runner = Runner(parts, write_ledger)
    good = runner.run()
    summary(runner)
    return 0 if good else 1


def test():
    """`make test`, and with CHANGED=1 the parts of test-ci that the working tree made stale."""
    if not os.environ.get("CHANGED"):
        return run([part for part in PARTS if part.name in README_PARTS], write_ledger=False)
    known = ledger.Ledger()
    head = commit_tree()
    changed = [part for part in PARTS if digest(part, known.tree) != digest(part, head)]
    stale = known.stale(changed) if not os.environ.get("AGAIN") else changed
    later = [part.name for part in stale if not part.ci]
    if later:
        print(f"Stale as well, and run by make test-full: {', '.join(later)}")
    # the fastest first, by what each took the last time
    seconds = {name: entry["seconds"] for name, entry in known.entries.items() if not ledger.malformed(entry)}
    chosen = sorted((part for part in stale if part.ci), key=lambda part: seconds.get(part.name, 600))
    return run(chosen, write_ledger=True)


def ci():
    return run([part for part in PARTS if part.ci], write_ledger=True)


def full():
    known = ledger.Ledger()
    stale = list(PARTS) if os.environ.get("AGAIN") else known.stale(PARTS)
    for part in PARTS:
        state, reason = known.state(part)
        print(f"{part.name:16}{'runs' if part in stale else 'kept':6}{state}{': ' if reason else ''}{reason}")
    return run(stale, write_ledger=True)


def show():
    if os.environ.get("TABLE"):
        table.write()
    for line in ledger.show():
        print(line)
    return 0


VERBS = {"test": test, "ci": ci, "full": full, "ledger": show}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    sys.exit(VERBS[parser.parse_args().verb]())


if __name__ == "__main__":
    main()
