"""The runner of the tests: what it counts, records and ends. Its parts here are small programs."""

import fcntl
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest
from proof import __main__ as verbs
from proof import ledger, runner, table
from proof.digest import digest
from proof.parts import PARTS, Part
from proof.runner import Runner
from proof.verdict import Result, judge, read_checks
from waiting import wait_until

TREE = {"tests/load/test_clients.py": "100644 1", "tests/README.md": "100644 2", "README.md": "100644 3"}
LOAD = next(part for part in PARTS if part.name == "load")
PASSED = {"id": "a", "outcome": "passed", "seconds": 2, "cpu": 1}
FAILED = {"id": "b", "outcome": "failed", "seconds": 1, "cpu": 1}


@dataclass(frozen=True)
class Program(Part):
    """A part that runs Python code instead of a make target."""

    @property
    def command(self):
        return [sys.executable, "-c", self.target]


def program(name, code, **options):
    return Program(name, code, ("tests/load/*",), "nothing", **{"group": name} | options)


def says(*lines):
    """Code of a part whose tests wrote these lines."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return f"import os; open(os.environ['PERGOLA_CHECKS'], 'w').write({text!r})"


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("PERGOLA_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(ledger, "PATH", tmp_path / "ledger.json")
    monkeypatch.setattr(runner, "working_tree", lambda: TREE)


def run(*parts, strict=False):
    made = Runner(parts, strict)
    return with_own_signals(made), made


def with_own_signals(made):
    """Run it, and give pytest its handlers of signals back."""
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        return made.run()
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def test_parts_are_counted_by_their_tests():
    passed, made = run(program("one", says(PASSED, PASSED)), program("two", says(PASSED)))
    assert passed
    assert {name: (one.verdict, one.passed) for name, one in made.results.items()} == {
        "one": ("passed", 2),
        "two": ("passed", 1),
    }


def test_one_part_that_fails_fails_the_run_and_the_others_go_on(capsys):
    passed, made = run(
        program("one", says(PASSED, FAILED) + "; print('why'); raise SystemExit(1)"),
        program("two", says(PASSED)),
    )
    assert not passed
    assert made.results["one"].verdict == "failed"
    assert made.results["two"].verdict == "passed"
    runner.summary(made)
    said = capsys.readouterr().out
    assert "why" in said
    assert said.splitlines()[-1] == "2 passed, 1 failed"


@pytest.mark.parametrize(
    ("code", "lines", "reason"),
    [
        (0, [], "no test was counted"),
        (2, [PASSED], "make --no-print-directory test-load exited with status 2"),
        (
            0,
            [PASSED, {"opened": ["README.md"]}],
            "it opens README.md: add that to its files in tests/proof/parts.py",
        ),
    ],
)
def test_a_part_fails_also_when_no_test_failed(code, lines, reason):
    result = judge(LOAD, code, lines, TREE)
    assert (result.verdict, result.reason) == ("failed", reason)


@pytest.mark.parametrize(
    "opened", ["tests/load/test_clients.py", ".venv/lib/x.py", "tests/load/made_by_a_test"]
)
def test_part_may_open_listed_and_untracked_files(opened):
    assert judge(LOAD, 0, [PASSED, {"opened": [opened]}], TREE).verdict == "passed"


def test_a_part_without_tests_is_judged_by_its_exit_status():
    lint = next(part for part in PARTS if part.name == "lint")
    assert judge(lint, 0, [], TREE).verdict == "passed"
    assert judge(lint, 1, [], TREE).verdict == "failed"


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "checks"
    path.write_text(json.dumps(PASSED) + '\n{"id": "b", "out')
    assert read_checks(path) == [PASSED]


def test_a_part_that_does_not_end_is_ended():
    began = time.monotonic()
    passed, made = run(program("one", says(PASSED) + "; import time; time.sleep(600)", minutes=0.02))
    assert not passed
    assert made.results["one"].reason
    assert time.monotonic() - began < 60


def test_an_error_of_the_runner_itself_fails_the_run(monkeypatch, capsys):
    monkeypatch.setattr(runner, "judge", lambda *_: 1 / 0)
    passed, made = run(program("one", says(PASSED)))
    assert not passed
    runner.summary(made)
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 2 failed"


def test_result_is_not_recorded_when_files_change_during_the_part(monkeypatch):
    part = program("load", says(PASSED))
    trees = iter([TREE, TREE | {"tests/load/test_clients.py": "100644 9"}])
    monkeypatch.setattr(runner, "working_tree", lambda: next(trees))
    run(part, strict=True)
    assert ledger.read() == {}

    monkeypatch.setattr(runner, "working_tree", lambda: TREE)
    run(part, strict=True)
    entry = ledger.read()["load"]
    assert (entry["verdict"], entry["passed"], entry["digest"]) == ("passed", 1, digest(part, TREE))

    run(program("load", says(FAILED) + "; raise SystemExit(1)"), strict=True)
    assert ledger.read()["load"]["verdict"] == "failed"


def test_part_that_tests_a_clone_of_head_is_recorded_only_for_head(monkeypatch):
    part = program("load", says(PASSED), committed=True)
    monkeypatch.setattr(runner, "commit_tree", lambda: TREE | {"tests/load/test_clients.py": "100644 9"})
    run(part, strict=True)
    assert ledger.read() == {}

    monkeypatch.setattr(runner, "commit_tree", lambda: TREE)
    heads = iter(["a" * 40, "b" * 40])
    with monkeypatch.context() as moved:
        moved.setattr(runner, "git", lambda *_: next(heads))
        run(part, strict=True)
    assert ledger.read() == {}

    run(part, strict=True)
    assert "load" in ledger.read()


def test_replica_of_older_files_proves_nothing_for_newer_ones(monkeypatch):
    """The files change between two parts that share a replica, which was made of the older ones."""
    newer = TREE | {"tests/load/test_clients.py": "100644 9"}
    made = Runner([program(name, says(PASSED), group="site") for name in ("load", "lint")], strict=True)
    monkeypatch.setattr(made, "bring_up", lambda *_: True)
    monkeypatch.setattr(made, "remove", lambda _: True)
    made.groups[0][0] = replace(made.groups[0][0], place="replica")
    trees = iter([TREE, TREE, newer])  # at the start, after the first part, after the second
    monkeypatch.setattr(runner, "working_tree", lambda: next(trees))
    assert with_own_signals(made)
    assert set(ledger.read()) == {"load"}


@pytest.mark.parametrize(
    ("places", "built"), [(["own"], True), (["own", "replica"], False), (["here"], False)]
)
def test_base_image_is_built_for_parts_that_build_theirs_elsewhere(monkeypatch, places, built):
    monkeypatch.setattr(runner, "base_packages", lambda: "")
    made = Runner([program(place, says(PASSED), place=place) for place in places], strict=True)
    assert made.lacks_image() == built


def test_a_replica_that_cannot_be_removed_is_not_used(monkeypatch):
    made = Runner([program("one", says(PASSED), place="replica")], strict=False)
    monkeypatch.setattr(made, "make", lambda _, verb: 1 if verb == "down" else 0)
    assert not with_own_signals(made)
    assert made.results["one"].reason == "an older replica is still there"


def test_a_part_gets_its_own_variables_and_not_the_callers(monkeypatch, tmp_path):
    others = ("ARGS", "ONLY", "ENV", "PERGOLA_ANSIBLE", "ANSIBLE_STRATEGY", "PYTEST_ADDOPTS")
    for name in ("FULL", *others):
        monkeypatch.setenv(name, "the caller's")
    keep = f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'kept')!r}, 'w')); "
    run(program("one", keep + says(PASSED), variables={"FULL": "1"}), strict=True)
    kept = json.loads((tmp_path / "kept").read_text())
    assert kept["FULL"] == "1"
    assert kept["CI"] == "true"
    assert not set(others) & set(kept)


def test_a_second_run_in_the_same_state_is_refused():
    made = Runner([program("one", says(PASSED))], strict=False)
    made.logs.mkdir(parents=True)
    with (made.logs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="Other tests are running in"):
            made.run()


def test_an_interrupt_ends_what_runs_and_runs_nothing_more(tmp_path):
    def waiting(name):
        started = str(tmp_path / name)
        return program(name, f"import pathlib, time; pathlib.Path({started!r}).touch(); time.sleep(600)")

    made = Runner([waiting("one"), waiting("two"), waiting("three")], strict=False)

    def interrupt():
        wait_until(lambda: {"one", "two"} <= {path.name for path in tmp_path.iterdir()}, "two parts to run")
        made.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert not with_own_signals(made)
    thread.join()
    assert made.results == {}
    assert not (tmp_path / "three").exists()


def test_an_interrupt_kills_what_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "KILLED_AFTER", 1)
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"pathlib.Path({str(tmp_path / 'deaf')!r}).touch(); time.sleep(600)"
    )
    made = Runner([program("one", deaf)], strict=False)

    def interrupt():
        wait_until((tmp_path / "deaf").exists, "the part to run")
        made.interrupt()
        made.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert not with_own_signals(made)
    thread.join()


def test_processor_time_counts_processes_that_left_their_parent(tmp_path):
    """As those do that supervise machines."""
    busy = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    orphan = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {busy!r}], "
        "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
    )
    code = (
        "import os, subprocess, sys, time\n"
        f"pid = subprocess.check_output([sys.executable, '-c', {orphan!r}], text=True).strip()\n"
        "while os.path.exists(f'/proc/{pid}'): time.sleep(0.1)"
    )
    command = [sys.executable, runner.MEASURED, tmp_path / "cpu", sys.executable, "-c", code]
    subprocess.run(command, check=True, timeout=120)
    assert float((tmp_path / "cpu").read_text()) >= 0.5


@pytest.mark.parametrize("status", [0, 3])
def test_the_measured_commands_exit_status_is_kept(tmp_path, status):
    command = [
        sys.executable,
        runner.MEASURED,
        tmp_path / "cpu",
        sys.executable,
        "-c",
        f"raise SystemExit({status})",
    ]
    assert subprocess.run(command, check=False).returncode == status


# --- make test CHANGED=1 and make ledger TABLE=1


def test_changed_parts_run_by_groups_fastest_first_and_each_group_in_its_order(monkeypatch):
    tree = {"app/x.py": "100644 1"}
    monkeypatch.setattr(ledger, "working_tree", lambda: tree)
    known = ledger.Ledger()
    entry = {"digest": "0" * 64, "commit": "0" * 40, "date": "2026-11-30T00:00:00Z", "passed": 1, "failed": 0}
    entry |= {"cpu": 1, "speed": 1, "slowest": []}
    seconds = {"runtime-host": 900, "releases": 10, "infra": 20, "smoke": 5, "browser": 5, "fresh": 2000}
    known.entries = {name: entry | {"verdict": "passed", "seconds": took} for name, took in seconds.items()}
    chosen, later = verbs.changed(known, {"app/x.py": "100644 2"})
    names = [part.name for part in chosen]
    assert names[0] == "infra"
    site = ["smoke", "browser", "runtime-host", "releases"]
    assert [name for name in names if name in site] == site
    # fresh tests a clone of HEAD, which has no uncommitted change
    assert {"servers", "bench", "fresh"} <= {part.name for part in later}
    assert verbs.changed(known, tree) == ([], [])


def test_the_tables_show_every_part_and_the_slowest_tests(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(table, "README", readme)
    run(program("load", says(PASSED | {"id": "tests/load/test_x.py::test_y", "seconds": 61})), strict=True)
    table.write()
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert all(f"\n| {part.name} |" in text for part in PARTS)
    assert "| `load/test_x.py` `test_y` | 61 s | 1 s |" in text


def test_a_result_without_a_test_is_a_failure():
    assert Result().verdict == "failed"
