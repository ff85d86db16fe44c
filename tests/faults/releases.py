"""Releases that tests make from a copy of the sample, and the plays that bring them out as make does."""

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PHASES = (
    *("pack", "build", "prepare_slot", "check", "migrate"),
    *("start_and_verify", "switch", "restart_followers", "drain", "prune"),
)
ROUNDS = int(os.environ.get("RELEASES_ROUNDS") or 5)  # a deploy and a rollback each
PATIENCE = 900
# Seconds that a long job works at its first attempt: less than the sample's limit of 50 s for a job, and far
# more than app_celery_soft_seconds, for which a stopping worker waits.
LONG = 40


class Source:
    """What a release is made from. Its /livez says its name, and its jobs take long enough to be cut off."""

    def __init__(self, folder, name):
        self.root, self.name = Path(folder), name
        shutil.copytree(
            ROOT / "app", self.root / "app", ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3")
        )
        shutil.copytree(ROOT / "requirements", self.root / "requirements")
        self.edit("core/health.py", '{"live": True}', f'{{"live": True, "release": "{name}"}}')
        self.edit("jobs/tasks.py", "ROUNDS = 3", "ROUNDS = 6")
        self.edit(
            "jobs/tasks.py",
            "    answered = 0\n",
            f"""\
            answered = 0
            import time
            until = time.monotonic() + {LONG} * (text.startswith("long") and job.attempts == 1)
            while time.monotonic() < until:
                step(job, 0, ROUNDS)
                time.sleep(0.5)
            """,
        )

    def edit(self, path, old, new):
        file = self.root / "app" / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        if "\n" in new:
            new = textwrap.indent(textwrap.dedent(new), "    ")
        file.write_text(text.replace(old, new))

    def append(self, path, text):
        file = self.root / "app" / path
        file.write_text(file.read_text() + textwrap.dedent(text))

    def migration(self, name, operations, app="core", after="0001_initial"):
        text = f"""\
        from django.db import migrations, models

        def fail(apps, schema_editor):
            raise RuntimeError("a migration that fails")

        class Migration(migrations.Migration):
            dependencies = [({app!r}, {after!r})]
            operations = [{operations}]
        """
        (self.root / f"app/{app}/migrations/{name}.py").write_text(textwrap.dedent(text))


@dataclass
class Broken:
    """A release that must not be brought out: how it is made, and what its refusal says."""

    make: object
    says: tuple
    options: tuple = ()


def cannot_be_imported(source):
    source.append("config/asgi.py", '\nraise RuntimeError("a release that cannot start")\n')


def never_ready(source):
    source.edit("core/health.py", "status=200 if ready else 503", "status=503")


def migration_fails(source):
    source.migration("0002_fails", "migrations.RunPython(fail)")


def migration_breaks_the_running_release(source):
    source.migration("0002_breaks", 'migrations.RemoveField("visit", "at")')


DIES = """
import os, sys, threading

def die():
    print("a process that dies", file=sys.stderr, flush=True)
    os._exit(7)

def die_soon():
    timer = threading.Timer(2, die)
    timer.daemon = True
    timer.start()
"""


def dies_after_its_start(source):
    source.append("config/asgi.py", f"{DIES}\ndie_soon()\n")


def dies_once_it_was_ready(source):
    """Only then does it begin to: the deploy has seen it ready."""
    source.append("core/health.py", DIES)
    source.edit("core/health.py", "    body = {", "if ready:\n    die_soon()\nbody = {")


def websocket_process_dies(source):
    """Daphne's alone: gunicorn's processes live."""
    source.append("config/asgi.py", f'{DIES}\nif "daphne" in " ".join(sys.argv):\n    die_soon()\n')


BROKEN = {
    "cannot be imported": Broken(cannot_be_imported, ("import_module", "a release that cannot start")),
    "never ready": Broken(
        never_ready, ("/readyz", "The journal's last lines"), ("-e", "deploy_ready_seconds=3")
    ),
    "migration fails": Broken(migration_fails, ("migrations were not applied", "a migration that fails")),
    "migration is refused": Broken(
        migration_breaks_the_running_release,
        ("migrations were not applied", "the running release uses the column core_visit.at"),
    ),
    # the deploy waits this long for a release that never becomes ready
    "dies after its start": Broken(
        dies_after_its_start, ("a process that dies",), ("-e", "deploy_ready_seconds=30")
    ),
    "dies once it was ready": Broken(dies_once_it_was_ready, ("a process that dies",)),
    "WebSocket process dies": Broken(websocket_process_dies, ("a process that dies",)),
}


def phases_by_task():
    """{a task's name: the phase, which is its file}"""

    def names(tasks):
        for task in tasks or []:
            yield task.get("name")
            for part in ("block", "rescue", "always"):
                yield from names(task.get(part))

    files = (ROOT / "infra/ansible/roles/deploy/tasks").glob("*.yml")
    return {name: file.stem for file in files for name in names(yaml.safe_load(file.read_text()))}


PLAYS = []
LEFT = {}  # {pid: when it started} of what killed plays may leave on this computer


def stat_of(pid):
    """(parent, when it started), as /proc counts."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), fields[19]
    return None, None


def descendants(pid):
    """Mitogen's processes for this computer are in groups of their own, and do not end with the play."""
    processes = {int(path.name): stat_of(path.name) for path in Path("/proc").glob("[0-9]*")}
    found = {pid}
    while more := {one for one, (parent, _) in processes.items() if parent in found} - found:
        found |= more
    return {one: processes[one][1] for one in found - {pid}}


def clear_away():
    """What a test that failed or was interrupted left running, and what killed plays did."""
    for play in PLAYS:
        if play.process.poll() is None:
            play.kill()
    PLAYS.clear()
    for pid, started in LEFT.items():
        if stat_of(pid)[1] == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    LEFT.clear()


class Play:
    """A playbook that runs, and then has run: what it said, when, and in which phase it was."""

    def __init__(self, replica, verb, *arguments):
        self.verb, self.arguments = verb, arguments
        self.tasks = []  # (time, phase, task)
        self.output = []
        self.known = phases_by_task()
        self.heard = threading.Condition()
        self.over = False
        self.began = self.ended = time.time()
        self.process = subprocess.Popen(
            [BIN / "ansible-playbook", "-i", replica.inventory, f"infra/ansible/{verb}.yml", *arguments],
            cwd=ROOT,
            # with skipped tasks a task is named when it begins; without, with its first result
            env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that kill() takes what belongs to it, and nothing else
        )
        PLAYS.append(self)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.heard:
                self.output.append(line)
                if line.startswith("TASK ["):
                    task = line[6:].rpartition("]")[0].partition(" : ")[2]
                    self.tasks.append((time.time(), self.known.get(task, ""), task))
                self.heard.notify_all()
        with self.heard:
            self.over, self.ended = True, time.time()
            self.heard.notify_all()

    def reach(self, phase):
        """Wait for the first task of a phase; whether it came."""
        with self.heard:
            self.heard.wait_for(lambda: self.over or phase in self.phases, PATIENCE)
            return phase in self.phases

    @property
    def phases(self):
        return {phase for _, phase, _ in self.tasks}

    def kill(self):
        """As when a terminal's session is killed: nothing of the group says goodbye."""
        LEFT.update(descendants(self.process.pid))
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.ended = time.time()

    def wait(self):
        self.process.wait(PATIENCE)
        self.reader.join(10)
        return self

    def works(self):
        self.wait()
        assert self.process.returncode == 0, self.text
        return self

    @property
    def text(self):
        return "".join(self.output)

    @property
    def said(self):
        """On one line, however it was wrapped."""
        return " ".join(self.text.split())

    @property
    def failed(self):
        """What was said from the first failure on, of a host or of an item."""
        return " ".join(" ".join(re.split("^(?:fatal|failed): ", self.text, flags=re.M)[1:]).split())

    @property
    def seconds(self):
        """{phase: seconds}, and what all of it took."""
        spent = {}
        ends = [at for at, _, _ in self.tasks[1:]] + [self.ended]
        for (at, phase, _), end in zip(self.tasks, ends, strict=False):
            if phase:
                spent[phase] = spent.get(phase, 0) + end - at
        return spent | {"all": self.ended - self.began}

    def at(self, moment):
        """What was going on."""
        if not self.began <= moment <= self.ended + 1:
            return ""
        before = [f"{phase}: {task}" for at, phase, task in self.tasks if at <= moment]
        return f"{self.verb} {' '.join(self.arguments)}, {before[-1] if before else 'its beginning'}"


def deploy(replica, source, *arguments):
    return Play(replica, "deploy", "-e", f"app_source={source.root}", *arguments)


def deploy_checkout(replica, *arguments):
    return Play(replica, "deploy", *arguments)


def rollback(replica, *arguments):
    return Play(replica, "rollback", *arguments)


def median(plays):
    """Seconds of the whole and of each phase, in words."""
    if not plays:
        return "none"
    spent = [play.seconds for play in plays]
    phases = {
        phase: statistics.median(one.get(phase, 0) for one in spent)
        for phase in dict.fromkeys(name for one in spent for name in one)
    }
    whole = phases.pop("all")
    parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items() if seconds >= 0.05)
    return f"{whole:.1f} s, the median of {len(plays)} ({parts})"
