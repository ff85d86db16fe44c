"""The tables of tests/README.md, made from the ledger: what each part proves, and what it takes."""

import sys

from . import ledger
from .digest import ROOT
from .parts import PARTS

README = ROOT / "tests/README.md"
BEGIN = "<!-- made by: make ledger TABLE=1 -->"
END = "<!-- end -->"
SLOWEST = 15
PLACES = {
    "here": "Python",
    "replica": "a replica",
    "own": "root, namespaces",
}


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def parts_table(entries):
    yield "| part | `make` | in CI | needs | proves, and no other part does | time | CPU | speed | tests |"
    yield "|---|---|---|---|---|---:|---:|---:|---:|"
    for part in PARTS:
        entry = entries.get(part.name)
        times = ["", "", "", ""]
        if entry and not ledger.malformed(entry):
            times = [
                duration(entry["seconds"]),
                duration(entry["cpu"]),
                f"{entry['speed']:.1f}",
                f"{entry['passed']:,}",
            ]
        settings = " ".join(
            f"{name}='{value}'" if " " in value else f"{name}={value}"
            for name, value in part.variables.items()
        )
        target = f"`{part.target}`" + (f" `{settings}`" if settings else "")
        row = [part.name, target, "yes" if part.ci else "", PLACES[part.place], part.proves, *times]
        yield f"| {' | '.join(row)} |"


def tests_table(entries):
    yield "| test | time | CPU |"
    yield "|---|---:|---:|"
    tests = [
        test
        for part in PARTS
        if part.ci and part.name in entries and not ledger.malformed(entries[part.name])
        for test in entries[part.name]["slowest"]
    ]
    for name, seconds, cpu in sorted(tests, key=lambda test: -test[1])[:SLOWEST]:
        path, _, test = name.partition("::")
        yield f"| `{path.removeprefix('tests/')}` `{test}` | {seconds:.0f} s | {cpu:.0f} s |"


def write():
    """Replace what stands between the two markers of tests/README.md."""
    entries = ledger.read()
    text = README.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"{README} lacks a line '{BEGIN}' or '{END}': put both where the tables belong")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(
        [*parts_table(entries), "", "The slowest tests of those in CI:", "", *tests_table(entries)]
    )
    README.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
