"""Runs parts of the tests, three groups at a time, and records what came of each.

More groups than two cores, because most tests wait: for a process that drains, a timeout, a machine that
boots. While one group waits, another computes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import ledger
from .calibration import speed
from .digest import ROOT, base_packages, digest, git, images, matches, working_tree
from .usage import machines_cpu

MEASURED = Path(__file__).with_name("measured.py")
LANES = 3
TAIL = 250  # lines of a part that failed
HEARTBEAT = 60
SLOWEST = 5


def states():
    return Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola").absolute()


@dataclass
class Result:
    """What came of a part. `passed` and `failed` count tests, or 1 for a part that is one command."""

    seconds: float
    cpu: float
    passed: int
    failed: int
    slowest: list
    wrong: str = ""  # why it failed, if no test says so

    @property
    def verdict(self):
        return "passed" if self.passed and not self.failed and not self.wrong else "failed"


class Replica:
    """A machine that the parts of a group share, in a state directory of its own."""

    def __init__(self, name, log):
        self.name = f"replica-{name}"
        self.state = states() / f"test-{name}"
        self.log = log
        self.environment = {
            "PERGOLA_STATE": str(self.state),
            "PERGOLA_IMAGES": str(images()),
            "PERGOLA_REPLICA": "1",  # tests/with-replica leaves it as it is
            "ENV": "local",
        }


def clean_environment():
    """The caller's, without what make passes on and what one part alone should get."""
    left_out = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "FULL", "PROVIDER", "RELEASES", "RELEASES_ROUNDS")
    return {name: value for name, value in os.environ.items() if name not in left_out} | {"CI": "true"}


class Runner:
    def __init__(self, parts, write_ledger):
        self.parts = parts
        self.write_ledger = write_ledger
        self.groups, self.alone = deque(), deque()
        for name in dict.fromkeys(part.group for part in parts):
            group = [part for part in parts if part.group == name]
            (self.alone if group[0].alone else self.groups).append(group)
        self.logs = states() / "logs"
        self.results = {}
        self.running = {}  # name -> its process
        self.recording = threading.Lock()
        self.began = time.monotonic()
        self.ending = threading.Event()

    def say(self, text):
        seconds = int(time.monotonic() - self.began)
        print(f"{seconds // 60:3}:{seconds % 60:02}  {text}", flush=True)

    def run(self):
        """Whether every part passed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.interrupt())
        self.run_groups(self.groups, LANES)
        self.run_groups(self.alone, 1)
        verdicts = [self.results[part.name].verdict for part in self.parts if part.name in self.results]
        return verdicts == ["passed"] * len(self.parts)

    def run_groups(self, groups, most):
        """So many at a time, in their order, with a line each minute."""
        lanes = [threading.Thread(target=self.lane, args=[groups]) for _ in range(min(most, len(groups)))]
        for lane in lanes:
            lane.start()
        beat = time.monotonic()
        while any(lane.is_alive() for lane in lanes):
            time.sleep(0.2)
            if time.monotonic() - beat > HEARTBEAT:
                beat = time.monotonic()
                self.say("; ".join(map(self.progress, list(self.running))))

    def progress(self, name):
        checks = self.checks(name)
        done = checks.read_text().count('"id"') if checks.exists() else 0
        return f"{name}: {done} tests done" if done else f"{name}: running"

    def interrupt(self):
        """End what runs, as Ctrl-C does; its replicas are removed before the runner ends."""
        self.ending.set()
        for process in list(self.running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    def lane(self, groups):
        while groups and not self.ending.is_set():
            try:
                group = groups.popleft()
            except IndexError:  # the other lane took the last one
                return
            self.run_group(group)

    def execute(self, command, environment, log, name=None, mode="w"):
        """The exit status of a command, with its output in a file. Without a name nothing interrupts it."""
        with log.open(mode) as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through interrupt() alone
            )
            if name:
                self.running[name] = process
            code = process.wait()
            self.running.pop(name, None)
        return code

    def make(self, replica, verb):
        command = ["make", "--no-print-directory", verb]
        environment = clean_environment() | replica.environment
        name = replica.name if verb == "up" else None
        return self.execute(command, environment, replica.log, name, "a")

    def run_group(self, group):
        needs_one = any(part.place == "replica" for part in group)
        name = group[0].group
        replica = Replica(name, self.log(f"replica-{name}")) if needs_one else None
        try:
            if replica and not self.bring_up(replica, group):
                return
            for part in group:
                if not self.ending.is_set():
                    self.finish(part, *self.run_part(part, replica))
        finally:
            if replica and not os.environ.get("KEEP") and self.make(replica, "down"):
                self.say(f"{replica.name} could not be removed, see {replica.log}")

    def bring_up(self, replica, group):
        began = time.monotonic()
        replica.log.unlink(missing_ok=True)
        code = self.make(replica, "up")
        names = ", ".join(part.name for part in group)
        if code == 0:
            self.say(f"replica for {names}: up in {time.monotonic() - began:.0f} s")
            return True
        for part in group:
            wrong = f"make up ended with {code}"
            self.finish(part, Result(time.monotonic() - began, 0, 0, 0, [], wrong), None, replica.log)
        return False

    def log(self, name):
        return self.logs / f"{name}.log"

    def checks(self, name):
        return self.logs / f"{name}.checks"

    def run_part(self, part, replica):
        tree = working_tree()
        checks, used = self.checks(part.name), self.logs / f"{part.name}.cpu"
        for file in (checks, used):
            file.unlink(missing_ok=True)
        environment = clean_environment() | part.variables | {"PERGOLA_CHECKS": str(checks)}
        environment |= replica.environment if replica else {}
        before = machines_cpu(replica.state / "local") if replica else 0
        began = time.monotonic()
        log = self.log(part.name)
        command = [sys.executable, str(MEASURED), str(used), *part.command]
        code = self.execute(command, environment, log, part.name)
        seconds = time.monotonic() - began
        cpu = float(used.read_text()) if used.exists() else 0.0
        cpu += max(0.0, machines_cpu(replica.state / "local") - before) if replica else 0
        return self.judge(part, code, seconds, cpu, tree), tree, log

    def judge(self, part, code, seconds, cpu, tree):
        checks = self.checks(part.name)
        lines = [json.loads(line) for line in checks.read_text().splitlines()] if checks.exists() else []
        tests = [line for line in lines if "id" in line]
        opened = {name for line in lines for name in line.get("opened", ())}
        passed = sum(test["outcome"] == "passed" for test in tests)
        failed = sum(test["outcome"] == "failed" for test in tests)
        if not tests:
            passed, failed = int(code == 0), int(code != 0)
        wrong = f"{' '.join(part.command)} ended with {code}" if code and not failed else ""
        unlisted = sorted(name for name in opened & set(tree) if not matches(name, part.files))
        if unlisted:
            wrong = f"it opens {', '.join(unlisted)}: add that to its files in tests/proof/parts.py"
        slowest = sorted(tests, key=lambda test: -test["seconds"])[:SLOWEST]
        slowest = [[test["id"], test["seconds"], test["cpu"]] for test in slowest]
        return Result(round(seconds, 1), round(cpu, 1), passed, failed, slowest, wrong)

    def finish(self, part, result, tree, log):
        if self.ending.is_set():
            return
        with self.recording:
            self.results[part.name] = result
            if result.verdict == "failed":
                self.show_end(part, result, log)
            counts = f"{result.passed} passed" + (f", {result.failed} failed" if result.failed else "")
            self.say(
                f"{part.name}: {result.verdict} in {result.seconds:.0f} s ({counts}, CPU {result.cpu:.0f} s)"
            )
            if self.write_ledger and tree is not None:
                self.record(part, result, tree)

    def show_end(self, part, result, log):
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        print(f"\n--- {part.name}: the last of {len(lines)} lines of {log}", flush=True)
        print("\n".join(lines[-TAIL:]))
        if result.wrong:
            print(f"--- {part.name}: {result.wrong}")
        print(flush=True)

    def record(self, part, result, tree):
        packages = base_packages() if part.place != "here" else ""
        found = digest(part, tree, packages)
        if found is None or found != digest(part, working_tree(), packages):
            self.say(f"{part.name}: its files changed while it ran, so that nothing is recorded")
            return
        entry = {
            "digest": found,
            "packages": packages,
            "commit": git("rev-parse", "HEAD").strip(),
            "date": datetime.now(UTC).strftime(ledger.CLOCK),
            "seconds": result.seconds,
            "cpu": result.cpu,
            "speed": self.speed,
            "passed": result.passed,
            "failed": result.failed,
            "verdict": result.verdict,
            "slowest": result.slowest,
        }
        ledger.record(part.name, entry)

    @property
    def speed(self):
        return speed()


def summary(runner):
    """A table, and the line that says in one place how many tests passed."""
    print(f"\n{'part':16}{'verdict':9}{'passed':>8}{'failed':>8}{'seconds':>9}{'CPU s':>8}")
    for name, one in runner.results.items():
        print(f"{name:16}{one.verdict:9}{one.passed:8}{one.failed:8}{one.seconds:9.0f}{one.cpu:8.0f}")
    seconds = time.monotonic() - runner.began
    print(f"\n{seconds / 60:.1f} minutes on {os.cpu_count()} cores, speed {speed():.2f} (tests/README.md)")
    passed = sum(one.passed for one in runner.results.values())
    failed = sum(one.failed or int(one.verdict == "failed") for one in runner.results.values())
    print(f"{passed} passed, {failed} failed", flush=True)
