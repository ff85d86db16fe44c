"""Runs parts of the tests, two groups at a time, and records the result of each.

Many tests wait: for a process that drains, a timeout, a machine that boots. While one group waits, the other
computes. Three groups kept both cores at 100 %, so that every test took several times as long.
"""

import contextlib
import fcntl
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
from .digest import ROOT, base_packages, commit_tree, digest, files_of, git, images, working_tree
from .usage import machines_cpu
from .verdict import Result, judge, read_checks

MEASURED = Path(__file__).with_name("measured.py")
ANSIBLE_PLAYBOOK = ".venv/bin/ansible-playbook"
LANES = 2
TAIL = 250  # lines of a part that failed
HEARTBEAT = 60
KILLED_AFTER = 300  # seconds that a part has to remove its machines once it was told to end
# These choose or change tests for one run. A part that ran with them would be recorded as if it had run
# whole.
NOT_PASSED_ON = (
    *("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "ENV", "SITE_URL", "SCREENSHOTS"),
    *("FULL", "PROVIDER", "RELEASES", "RELEASES_ROUNDS"),
    *("ONLY", "CONTESTANTS", "CLIENTS", "PATHS", "NAME", "BASE", "WEBSOCKETS"),
)
FAMILIES = ("ANSIBLE_", "DJANGO_", "PERGOLA_", "PYTEST_")
PASSED_ON = ("PERGOLA_STATE", "PERGOLA_IMAGES")


def states():
    return Path(os.environ.get("PERGOLA_STATE") or ROOT / ".pergola").absolute()


def passed_on(name):
    return name in PASSED_ON or not (name in NOT_PASSED_ON or name.startswith(FAMILIES))


@dataclass(frozen=True)
class Start:
    """The files at the moment at which a part began, or the replica was begun that it runs on."""

    tree: dict
    commit: str
    commit_tree: dict


class Replica:
    """A machine that the parts of a group share, in a state directory of its own."""

    def __init__(self, group):
        self.name = f"replica-{group}"
        self.state = states() / f"test-{group}"
        self.environment = {
            "PERGOLA_STATE": str(self.state),
            "PERGOLA_IMAGES": str(images()),
            "PERGOLA_REPLICA": "1",  # tests/with-replica uses it
            "ENV": "local",
        }

    def cpu(self):
        return machines_cpu(self.state / "local")


class Runner:
    """`strict`: nothing may be skipped, and the results are written into the ledger."""

    def __init__(self, parts, strict):
        self.parts = parts
        self.keep = bool(os.environ.get("KEEP"))
        # a replica that was kept may have been built by other files
        self.records = strict and not self.keep
        self.environment = {name: value for name, value in os.environ.items() if passed_on(name)}
        self.environment |= {"CI": "true"} if strict else {}
        groups = {}
        for part in parts:
            groups.setdefault(part.group, []).append(part)
        self.groups = deque(group for group in groups.values() if not group[0].alone)
        self.alone = deque(group for group in groups.values() if group[0].alone)
        self.logs = states() / "logs"
        self.results = {}
        self.problems = []  # beside the parts' results
        self.running = {}  # name: its process
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.began = time.monotonic()

    def log_line(self, text):
        seconds = int(time.monotonic() - self.began)
        print(f"{seconds // 60:3}:{seconds % 60:02}  {text}", flush=True)

    def run(self):
        """Return whether every part passed and every replica was removed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"Other tests are running in {states()}: wait for them, or set PERGOLA_STATE")
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(name, lambda *_: self.interrupt())
            if self.keep:
                self.log_line("KEEP=1: nothing is recorded, as a replica may be of other files")
            elif self.records and self.lacks_image():
                self.build_base_image()
            self.run_groups(self.groups, LANES)
            self.run_groups(self.alone, 1)
        passed = [name for name, one in self.results.items() if one.verdict == "passed"]
        return len(passed) == len(self.parts) and not self.problems

    def run_groups(self, groups, most):
        """Run at most so many groups at once, in their order; write a line each minute."""
        lanes = [threading.Thread(target=self.lane, args=[groups]) for _ in range(min(most, len(groups)))]
        for lane in lanes:
            lane.start()
        beat = time.monotonic()
        told = False
        while any(lane.is_alive() for lane in lanes):
            time.sleep(0.2)
            if self.ending.is_set() and not told:
                told = True
                self.log_line("interrupted: the machines are being removed")
            if time.monotonic() - beat > HEARTBEAT:
                beat = time.monotonic()
                self.log_line("; ".join(map(self.progress, list(self.running))))

    def progress(self, name):
        checks = self.checks(name)
        done = checks.read_text().count('"id"') if checks.exists() else 0
        return f"{name}: {done} tests done" if done else f"{name}: running"

    def interrupt(self):
        """Tell everything to end, as Ctrl-C does. Replicas are removed before the runner ends.

        Once: a second signal would reach what removes the machines.
        """
        if self.ending.is_set():
            return
        with self.lock:
            self.ending.set()
            for process in self.running.values():
                send(process, signal.SIGINT)

    def lane(self, groups):
        while not self.ending.is_set():
            try:
                group = groups.popleft()
            except IndexError:
                return
            try:
                self.run_group(group)
            except BaseException as error:  # of a thread, it would be lost: the parts would be missing alone
                self.problems.append(f"{', '.join(part.name for part in group)}: {error!r}")
                self.log_line(self.problems[-1])

    def execute(self, command, environment, log, name=None, minutes=60, mode="w"):
        """Run a command with its output in a file; return its exit status.

        It is ended by an interrupt, if it has a name, and when its minutes are over.
        """
        with log.open(mode) as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it through interrupt() alone
            )
            with self.lock:
                if name:
                    self.running[name] = process
                    if self.ending.is_set():
                        send(process, signal.SIGINT)
            deadline = time.monotonic() + minutes * 60
            while (code := finished(process)) is None:
                if time.monotonic() > deadline:
                    self.log_line(f"{name or command[-1]}: not done after {minutes} minutes, so it is ended")
                    send(process, signal.SIGINT)
                    code = wait_or_kill(process)
                elif name and self.ending.is_set():
                    code = wait_or_kill(process)
            with self.lock:
                self.running.pop(name, None)
        return code

    def make(self, replica, verb):
        name = replica.name if verb == "up" else None
        command = ["make", "--no-print-directory", verb]
        log = self.log(replica.name)
        return self.execute(command, self.environment | replica.environment, log, name, mode="a")

    def remove(self, replica):
        """Return whether it is gone; a later part must not find a machine that was made of other files."""
        if self.make(replica, "down") == 0:
            return True
        self.problems.append(f"{replica.name} could not be removed, see {self.log(replica.name)}")
        self.log_line(self.problems[-1])
        return False

    def lacks_image(self):
        """Whether no part builds a base image that can be read: its packages belong to what is recorded."""
        places = {part.place for part in self.parts}
        return "own" in places and "replica" not in places and not base_packages()

    def build_base_image(self):
        replica = Replica("image")
        log = self.log(replica.name)
        log.unlink(missing_ok=True)
        command = [
            *(ANSIBLE_PLAYBOOK, "--inventory", "infra/ansible/inventory/local"),
            "infra/ansible/up.yml",
        ]
        self.log_line(f"{replica.name}: the base image is being built")
        self.execute(command, self.environment | replica.environment, log, replica.name, mode="a")
        self.remove(replica)

    def run_group(self, group):
        needs_one = any(part.place == "replica" for part in group)
        replica = Replica(group[0].group) if needs_one else None
        start = self.start() if replica else None
        try:
            if replica and not self.bring_up(replica, group, start):
                return
            for part in group:
                if not self.ending.is_set():
                    self.run_part(part, replica, start or self.start())
        finally:
            if replica and not self.keep:
                self.remove(replica)

    def bring_up(self, replica, group, start):
        began = time.monotonic()
        self.log(replica.name).unlink(missing_ok=True)
        removed = self.keep or self.remove(replica)  # what an earlier run left was made of other files
        code = self.make(replica, "up") if removed else 1
        seconds = time.monotonic() - began
        if code == 0:
            self.log_line(f"{replica.name}: up in {seconds:.0f} s")
            return True
        for part in group:
            reason = f"make up exited with status {code}" if removed else "an older replica is still there"
            self.finish(part, Result(seconds, reason=reason), start, self.log(replica.name))
        return False

    def start(self):
        """What only a run that is recorded needs."""
        if not self.records:
            return Start({}, "", {})
        return Start(working_tree(), git("rev-parse", "HEAD").strip(), commit_tree())

    def log(self, name):
        return self.logs / f"{name}.log"

    def checks(self, name):
        return self.logs / f"{name}.checks"

    def run_part(self, part, replica, start):
        checks, used, log = self.checks(part.name), self.logs / f"{part.name}.cpu", self.log(part.name)
        for file in (checks, used):
            file.unlink(missing_ok=True)
        environment = self.environment | part.variables | {"PERGOLA_CHECKS": str(checks)}
        environment |= replica.environment if replica else {}
        before = replica.cpu() if replica else 0
        began = time.monotonic()
        command = [sys.executable, str(MEASURED), str(used), *part.command]
        code = self.execute(command, environment, log, part.name, part.minutes)
        seconds = time.monotonic() - began
        cpu = float(used.read_text()) if used.exists() else 0.0
        cpu += max(0.0, replica.cpu() - before) if replica else 0
        result = judge(part, code, read_checks(checks), start.tree)
        result.seconds, result.cpu = round(seconds, 1), round(cpu, 1)
        self.finish(part, result, start, log)

    def finish(self, part, result, start, log):
        if self.ending.is_set():
            return
        with self.lock:
            self.results[part.name] = result
            if result.verdict == "failed":
                show_end(part, result, log)
            counts = f"{result.passed} passed" + (f", {result.failed} failed" if result.failed else "")
            figures = f"{counts}, CPU {result.cpu:.0f} s"
            self.log_line(f"{part.name}: {result.verdict} in {result.seconds:.0f} s ({figures})")
            if self.records:
                self.record(part, result, start)

    def record(self, part, result, start):
        packages = base_packages() if part.place != "here" else ""
        found = digest(part, start.tree, packages)
        if found is None or found != digest(part, working_tree(), packages):
            self.log_line(f"{part.name}: not recorded, as its files changed while it ran")
            return
        if part.committed and files_of(part, start.tree) != files_of(part, start.commit_tree):
            self.log_line(f"{part.name}: not recorded, as it tests HEAD and the working tree differs")
            return
        if part.committed and git("rev-parse", "HEAD").strip() != start.commit:
            self.log_line(f"{part.name}: not recorded, as it tests HEAD, which moved while it ran")
            return
        entry = {
            "digest": found,
            "packages": packages,
            "commit": start.commit,
            "date": datetime.now(UTC).strftime(ledger.CLOCK),
            "seconds": result.seconds,
            "cpu": result.cpu,
            "speed": speed(),
            "passed": result.passed,
            "failed": result.failed,
            "verdict": result.verdict,
            "slowest": result.slowest,
        }
        ledger.record(part.name, entry | ({"reason": result.reason} if result.reason else {}))


def send(process, number):
    """To the command and all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def finished(process):
    """Its exit status; None while it runs, after at most a second."""
    try:
        return process.wait(1)
    except subprocess.TimeoutExpired:
        return None


def wait_or_kill(process):
    try:
        return process.wait(KILLED_AFTER)
    except subprocess.TimeoutExpired:
        send(process, signal.SIGKILL)
        return process.wait()


def show_end(part, result, log):
    """Print why a part failed and the end of what it wrote; in CI, which keeps no file, all of it."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    shown = lines if os.environ.get("CI") == "true" else lines[-TAIL:]
    print(f"\n--- {part.name}: the last {len(shown)} of {len(lines)} lines of {log}", flush=True)
    print("\n".join(shown))
    if result.reason:
        print(f"--- {part.name}: {result.reason}")
    print(flush=True)


def summary(runner):
    """A table, and a last line that counts all tests; a part without a result counts as failed."""
    print(f"\n{'part':16}{'verdict':9}{'passed':>8}{'failed':>8}{'seconds':>9}{'CPU s':>8}")
    for part in runner.parts:
        one = runner.results.get(part.name)
        if one:
            print(
                f"{part.name:16}{one.verdict:9}{one.passed:8}{one.failed:8}{one.seconds:9.0f}{one.cpu:8.0f}"
            )
        else:
            print(f"{part.name:16}not run")
    for problem in runner.problems:
        print(problem)
    seconds = time.monotonic() - runner.began
    print(f"\n{seconds / 60:.1f} minutes on {os.cpu_count()} cores, speed {speed():.2f} (tests/README.md)")
    results = runner.results.values()
    failed = sum(one.failed or int(one.verdict == "failed") for one in results)
    failed += len(runner.parts) - len(results) + len(runner.problems)
    print(f"{sum(one.passed for one in results)} passed, {failed} failed", flush=True)
