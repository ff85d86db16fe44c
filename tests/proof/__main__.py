"""What make calls: .venv/bin/python -m tests.proof VERB"""

import argparse
import os
import subprocess
import sys

from . import ledger, table
from .digest import commit_tree, digest
from .parts import PARTS
from .runner import Runner, summary

# in the order in which their groups begin: infra takes as long as the others together
README_PARTS = ("infra", "lint", "app", "config", "pergola", "smoke", "browser")


def run(parts, strict=True):
    """Run these parts; the exit status."""
    if os.geteuid() and any(part.place != "here" for part in parts):
        # As the parts are started: sudo remembers a password for a terminal, and they have none.
        try:
            subprocess.run(["sudo", "-n", "true"], capture_output=True, start_new_session=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            sys.exit("Machines need root: run this as root, or as a user whom sudo asks for no password")
    runner = Runner(parts, strict)
    passed = runner.run()
    summary(runner)
    return 0 if passed else 1


def test():
    """`make test`: the README's parts; with CHANGED=1 those that uncommitted changes make stale."""
    if not os.environ.get("CHANGED"):
        parts = [part for name in README_PARTS for part in PARTS if part.name == name]
        return run(parts, strict=False)
    known = ledger.Ledger()
    chosen, later = changed(known, commit_tree(), again=bool(os.environ.get("AGAIN")))
    if later:
        print(f"Also stale, left to make test-full on a commit: {', '.join(part.name for part in later)}")
    if not chosen:
        print("No uncommitted change makes another part stale (AGAIN=1 runs the parts of all of them anyway)")
        return 0
    return run(chosen)


def changed(known, head, again=False):
    """The parts that the working tree made stale: (those to run now, fastest first; the others).

    Now are those of make test-ci, except what tests a clone of HEAD and would not see the change.
    """
    concerned = [part for part in PARTS if digest(part, known.tree) != digest(part, head)]
    stale = concerned if again else known.stale(concerned)
    # by groups, as the parts of a group keep their order: some leave their replica broken
    took = {}
    for part in stale:
        entry = known.entries.get(part.name)
        seconds = 600 if entry is None or ledger.malformed(entry) else entry["seconds"]
        took[part.group] = took.get(part.group, 0) + seconds
    now = [part for part in stale if part.ci and not part.committed]
    return sorted(now, key=lambda part: took[part.group]), [part for part in stale if part not in now]


def ci():
    return run([part for part in PARTS if part.ci])


def full():
    known = ledger.Ledger()
    stale = list(PARTS) if os.environ.get("AGAIN") else known.stale(PARTS)
    for part in PARTS:
        state, reason = known.state(part)
        print(f"{part.name:16}{'runs' if part in stale else 'kept':6}{state}{': ' if reason else ''}{reason}")
    if not stale:
        print("Every part is proved for these files (AGAIN=1 runs them anyway)")
        return 0
    return run(stale)


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
