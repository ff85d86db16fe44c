"""Measure the stack's speed on a local replica: `make bench`, or `python -m bench` with ENV that is up.

Takes this checkout to the replica, measures there (measure.py), and writes bench/results/<date>.json, .md and
.svg. Nothing of it is left on the replica, also where it is interrupted. A run of a part is written to
<date>-part.json, which git ignores, unless it has a name.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import plan, report
from bench.contestants import CONTESTANTS, ENDPOINTS
from pergola import inventory

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
REMOTE = "/var/tmp/pergola-bench"  # noqa: S108  root's own, on the replica
SHIPPED = ["app", "bench", "runtime", "requirements/bench.txt"]
UNIT = "pergola-bench"
WEBSOCKETS = 10_000
WEBSOCKET_SECONDS = 100
MEMORY_MB = 5000  # fourteen contestants, ten thousand WebSockets, and the replica's own processes

# Debian's wrk beside the rest, and not installed: what is one directory is gone with it.
PREPARE = f"""
set -eu
umask 022
rm -rf {REMOTE}
mkdir {REMOTE}
cd {REMOTE}
tar --extract --gzip --no-same-owner
uv venv --quiet --python /usr/bin/python3 venv
uv pip install --quiet --python venv/bin/python --require-hashes --requirements requirements/bench.txt
rm -rf cache
venv/bin/python -m compileall -q -j 0 venv/lib app bench runtime
mkdir wrk packages
cd packages
get() {{ apt-get -q download wrk libluajit-5.1-2 libluajit-5.1-common >/dev/null 2>&1; }}
get || {{ apt-get -q update >/dev/null; get; }}
for package in *.deb; do dpkg --extract "$package" .; done
cp usr/bin/wrk usr/lib/*/libluajit-5.1.so.2 ../wrk/
"""


def listed(known, what):
    def parse(text):
        chosen = [word for word in text.split(",") if word]
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word} is none of the {what} {', '.join(map(str, known))}")
        return chosen

    return parse


def numbers(text):
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a list of numbers, such as 1,64") from None


def commit(text):
    """The commit's full name, where it has a runtime."""
    if not text:
        return ""
    named = ["git", "rev-parse", "--verify", "--quiet", f"{text}:runtime/src/pergola_runtime"]
    if subprocess.run(named, cwd=ROOT, capture_output=True, check=False).returncode:
        raise argparse.ArgumentTypeError(f"{text} is no commit with a runtime/: name one that git log shows")
    full = ["git", "rev-parse", f"{text}^{{commit}}"]
    return subprocess.run(full, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def arguments():
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__.split("\n", 1)[0],
        epilog="Contestants: " + ", ".join(CONTESTANTS),
    )
    add = parser.add_argument
    add(
        "--only",
        type=listed(ENDPOINTS, "endpoints"),
        default=[],
        metavar="hello,row",
        help="ONLY: these endpoints",
    )
    add("--contestants", type=listed(CONTESTANTS, "contestants"), default=[], metavar="pergola,stock",
        help="CONTESTANTS: these")  # fmt: skip
    add("--clients", type=numbers, default=[], metavar="1,64", help="CLIENTS: at these numbers of clients")
    add(
        "--paths",
        type=listed(("direct", "nginx"), "paths"),
        default=[],
        metavar="direct",
        help="PATHS: these ways",
    )
    add("--full", action="store_true", help="FULL=1: all contestants everywhere, instead of the chosen ones")
    add("--websockets", action="store_true", help="WEBSOCKETS=1: them too, which a part has not")
    add("--name", default="", help="NAME: of the results' files, instead of the date")
    add(
        "--base",
        type=commit,
        default="",
        metavar="COMMIT",
        help="BASE: its runtime beside this one's, 9 rounds",
    )
    add("--rounds", type=int, default=plan.ROUNDS, help="how often each runs in turn (%(default)s)")
    options = parser.parse_args()
    others = (options.full, options.contestants, options.clients, options.paths, options.websockets)
    if options.base and (any(others) or options.rounds != plan.ROUNDS):
        parser.error("BASE has its own contestants, clients, paths and rounds: only ONLY and NAME go with it")
    return options


def load_settings(env):
    _, hosts = inventory.load(env)
    settings = next(iter(hosts.values()))
    if len(hosts) != 1 or "machines_provider" not in settings:
        sys.exit(
            f"ENV={env}: a benchmark wants a local replica of one machine, as it loads it; ENV=local is one"
        )
    if "ansible_host" not in settings:
        sys.exit(
            f"ENV={env} is not up: run make bench, which brings a replica of its own up, or make up ENV={env}"
        )
    if int(settings["host_memory_mb"]) < MEMORY_MB:
        sys.exit(
            f"ENV={env} has a machine of {settings['machines_memory']}, in which the contestants would wait "
            "for memory: run make bench, or PERGOLA_MEMORY=6G make up before the first make up"
        )
    return settings


class Replica:
    def __init__(self, settings):
        self.settings = settings

    def command(self, *words):
        return [*self.settings["host_login"], "--", "sudo", *words]

    def refuse_another(self):
        unit = self.command("systemctl", "is-active", "--quiet", f"{UNIT}.service")
        if subprocess.run(unit, check=False).returncode == 0:
            sys.exit(f"Another benchmark runs on that replica: wait for it, or stop the unit {UNIT} there")

    def prepare(self, base):
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHIPPED],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        pack = ["tar", "--create", "--gzip", "--null", "--files-from=-", "--ignore-failed-read"]
        with tempfile.TemporaryDirectory() as folder:
            if base:
                archive = [
                    "git",
                    "archive",
                    "--prefix=base/",
                    f"--output={folder}/base.tar",
                    f"{base}:runtime",
                ]
                subprocess.run(archive, cwd=ROOT, check=True)
                subprocess.run(["tar", "-xf", f"{folder}/base.tar", "-C", folder], check=True)
                pack += ["-C", folder, "base"]
            packed = subprocess.run(pack, cwd=ROOT, input=names, capture_output=True, check=True).stdout
        index = self.settings.get("app_python_index")
        environment = {
            "UV_CACHE_DIR": f"{REMOTE}/cache",
            "UV_SYSTEM_CERTS": "true",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        environment |= {"UV_DEFAULT_INDEX": index} if index else {}
        words = [f"{name}={value}" for name, value in environment.items()]
        done = subprocess.run(
            self.command("env", *words, "sh", "-c", quoted(PREPARE)),
            input=packed,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"The replica cannot be prepared: {done.stderr.decode().strip()[-800:]}")

    def measure(self, job, seconds):
        """What it tells, line by line."""
        python = f"{REMOTE}/venv/bin/python {REMOTE}/bench/measure.py"
        properties = {
            "LimitNOFILE": "65536",
            "TasksMax": "infinity",
            "RuntimeMaxSec": str(int(2 * seconds + 600)),
            # whatever ended it, and though nobody may be there any more
            "ExecStopPost": quoted(f"{python} clean"),
        }
        words = [word for name, value in properties.items() for word in ("-p", f"{name}={value}")]
        run = [
            "systemd-run",
            "--quiet",
            "--pipe",
            "--wait",
            "--collect",
            f"--unit={UNIT}",
            *words,
            *python.split(),
        ]
        process = subprocess.Popen(
            self.command(*run), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            yield from map(json.loads, process.stdout)
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()  # which ends it
            process.wait()

    def leave(self):
        """Also when it was interrupted: so in a process group that Ctrl-C does not reach."""
        script = f"systemctl stop {UNIT}.service 2>/dev/null; rm -rf {REMOTE}"
        subprocess.run(self.command("sh", "-c", quoted(script)), check=True, start_new_session=True)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def show(cell, left):
    where = f"{cell['endpoint']:8}{cell['clients']:5} clients  {cell['path']:7}{cell['contestant']:16}"
    times = f"p50 {cell['p50_ms']:8.1f} ms  p99 {cell['p99_ms']:8.1f} ms"
    print(
        f"  {left // 60:2}:{left % 60:02} left  {where}{cell['rps']:9,.0f}/s  {times}  "
        f"{cell['errors']:4} errors",
        flush=True,
    )


def gather(replica, groups, websockets):
    seconds = plan.takes(groups) + (WEBSOCKET_SECONDS if websockets else 0)
    settings = replica.settings
    job = {
        "groups": [asdict(group) for group in groups],
        "websockets": websockets,
        "websockets_seconds": WEBSOCKET_SECONDS if websockets else 0,
        "environment_file": settings["app_env_file"],
        "user": settings["app_user"],
        "group": settings["app_group"],
        "database_user": settings["database_user"],
        "postgresql_port": settings["postgresql_port"],
        "pgbouncer_directory": settings["pgbouncer_socket_directory"],
        "pgbouncer_port": settings["pgbouncer_port"],
    }
    told, cells, whole = {}, [], False
    for line in replica.measure(job, seconds):
        if "refused" in line:
            sys.exit(f"Not measured: {line['refused']}")
        if "cell" in line:
            cells.append(line["cell"] | {"group": line["group"], "round": line["round"]})
            show(line["cell"], max(0, line["left"]))
        elif "progress" in line:
            print(f"  {line['progress']}", flush=True)
        else:
            whole |= bool(line.pop("done", False))
            told |= line
    if not whole:
        sys.exit("Not measured to the end")
    return told, cells


def main():
    options = arguments()
    part = bool(options.only or options.contestants or options.clients or options.paths or options.base)
    groups = (
        [group for group in plan.against_base() if not options.only or group.endpoint in options.only]
        if options.base
        else plan.chosen(
            full=options.full,
            only=options.only,
            contestants=options.contestants,
            clients=options.clients,
            paths=options.paths,
            rounds=options.rounds,
        )
    )
    if not groups:
        sys.exit("ONLY, CONTESTANTS, CLIENTS and PATHS leave nothing to measure; FULL=1 has all combinations")
    replica = Replica(load_settings(os.environ.get("ENV") or "local"))
    replica.refuse_another()
    now = datetime.now(UTC)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    known = {
        "date": now.date().isoformat(),
        "commit": commit.stdout.strip(),
        "load": round(os.getloadavg()[0], 1),
        "base": options.base[:12],
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("Preparing the replica", flush=True)
        replica.prepare(options.base)
        told, cells = gather(replica, groups, 0 if part and not options.websockets else WEBSOCKETS)
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing was written")
    finally:
        replica.leave()
    found = report.compose(cells, known | told, replica.settings["pgbouncer_pool_size"])
    default = known["date"] + ("-base" if options.base else "") + ("-part" if part else "")
    path = RESULTS / f"{options.name or default}.json"
    report.write(found, path)
    for target in found["targets"]:
        verdict = "reached" if target["reached"] else "MISSED"
        print(f"  {target['target']:52} {target['wanted']:>12} {target['measured']:8g}  {verdict}")
    for line in found["compared"]:
        print(
            f"  {line['endpoint']:8}{line['clients']:5} clients  processor time of a request: "
            f"{line['cpu_ratio']:.3f} of {known['base']}'s ({line['lowest']:.3f} to {line['highest']:.3f}, "
            f"{line['rounds']} rounds, {line['errors']} errors)"
        )
    tell_runner(found["targets"])
    print(f"{path.relative_to(ROOT)}, .md and .svg")


def tell_runner(targets):
    """A line for each target, as tests have one, where the runner of all tests asks for it."""
    if asked := os.environ.get("PERGOLA_CHECKS"):
        with open(asked, "a") as file:  # noqa: PTH123
            for target in targets:
                outcome = "passed" if target["reached"] else "failed"
                line = {"id": f"bench: {target['target']}", "outcome": outcome, "seconds": 0, "cpu": 0}
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
