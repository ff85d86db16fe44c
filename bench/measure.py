"""Measure, on the machine itself: reads a job from standard input, writes a line of JSON for all it learned.

Runs as root (memory of other users' processes, PostgreSQL's table of connections), the contestants as the
application's user with its environment. It ends with its standard input, so that nothing goes on when the
control machine is gone; whoever started it runs `measure.py clean` afterwards, whatever happened.
"""

import contextlib
import http.client
import importlib.metadata
import json
import math
import os
import platform
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg

HERE = Path(__file__).resolve().parent
HOME = HERE.parent
sys.path.insert(0, str(HOME))

from bench import plan, wrk  # noqa: E402
from bench.contestants import CONTESTANTS, SERVICES, Service  # noqa: E402

PROGRAMS = Path(sys.executable).parent
FIRST_PORT = 5600
UPSTREAM_PORT = FIRST_PORT + 99
TLS = 100  # nginx listens so much above the contestant's own port
NGINX_SITE = Path("/etc/nginx/sites/bench.conf")
NGINX_LOG = Path("/var/log/nginx/bench.log")  # its unit sees no other place
PATIENCE = 60
DATABASE_ENDPOINTS = ("row", "rows", "session")
PACKAGES = [
    *("django", "asgiref", "gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "httptools", "psycopg"),
    *("psycopg-pool", "channels", "daphne", "fastapi", "granian", "hypercorn", "aiohttp"),
    *("redis", "django-vcache"),
]
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = '{user}' AND "
)


class RefusedError(Exception):
    pass


def tell(**what):
    print(json.dumps(what), flush=True)


def read_environment(path):
    """systemd's EnvironmentFile, as our template writes it."""
    lines = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    pairs = (line.split("=", 1) for line in lines)
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def wait_for(condition, message, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise RefusedError(f"{message} within {seconds} s")
        time.sleep(0.05)
    return value


def session_processes(leader):
    """All processes of a contestant: it was started as the leader of a session of its own."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            # the name in brackets may hold anything
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                yield path, fields


class Running:
    """A service that listens on 127.0.0.1."""

    def __init__(self, service, port, machine):
        self.service, self.port = service, port
        words = {"port": port, "workers": service.workers, "fd": ""}
        arguments = {}
        if "{fd}" in service.command:
            listening = socket.create_server(("127.0.0.1", port), backlog=4096)
            words["fd"] = listening.fileno()
            arguments["pass_fds"] = [listening.fileno()]
        program, *rest = service.command.format(**words).split()
        self.log = HOME / "log" / f"{service.name}.log"
        with self.log.open("w") as log:
            self.processes = [
                subprocess.Popen(
                    [PROGRAMS / program, *rest],
                    cwd=HOME,
                    env=machine.environment_of(service),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    **machine.identity,
                    **arguments,
                )
                for _ in range(service.processes)
            ]
        if arguments:
            listening.close()

    def ready(self):
        def answers():
            if any(process.poll() is not None for process in self.processes):
                raise RefusedError(f"{self.service.name} ended: {self.log.read_text()[-2000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                # what a worker took that is only beginning may never be answered
                return get(self.port, "/async/hello", None, seconds=5)[0] == 200
            return False

        try:
            wait_for(answers, f"{self.service.name} does not answer")
        except RefusedError as error:
            raise RefusedError(f"{error}: {self.log.read_text()[-2000:]}") from None

    def everything(self):
        return [found for process in self.processes for found in session_processes(process.pid)]

    def cpu_seconds(self):
        ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in self.everything())
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        """What it has for itself, and its share of what processes share."""
        total = 0
        for path, _ in self.everything():
            with contextlib.suppress(OSError):
                text = (path / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def rest(self):
        """A slow contestant is still at what nobody waits for: the next cell is not to pay for it."""
        end, before = time.monotonic() + 20, self.cpu_seconds()
        while time.monotonic() < end:
            time.sleep(0.15)
            now = self.cpu_seconds()
            if now - before < 0.02:
                return
            before = now

    def stop(self):
        for process in self.processes:
            for path, _ in session_processes(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
            process.wait()


def get(port, path, cookie, seconds=PATIENCE):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def accepts(path):
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return True
    return False


class Connections:
    """PostgreSQL's server connections of the application's user: the most that were seen at one time."""

    def __init__(self, user, port):
        self.question = CONNECTIONS.format(user=user)
        psql = ["psql", "-AtqX", "-F", " ", "-p", str(port), "-d", "postgres"]
        self.psql = subprocess.Popen(
            ["/usr/sbin/runuser", "-u", "postgres", "--", *psql],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question):
        self.psql.stdin.write(question + "\n")
        self.psql.stdin.flush()
        return self.psql.stdout.readline().strip()

    @contextlib.contextmanager
    def watched(self, name):
        """Of the direct service of that name; or with none, of PgBouncer's."""
        which = f"application_name = 'bench-{name}'"
        if name is None:  # those of an earlier contestant are there for a moment yet
            began = self.ask("SELECT now();")
            which = f"application_name NOT LIKE 'bench-%' AND backend_start >= '{began}'"
        seen, stop = [], threading.Event()

        def look():
            seen.append(int(self.ask(f"{self.question}{which};")))

        def watch():
            while not stop.wait(0.2):
                look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
            look()


def python_path(runtime):
    return f"{HOME}:{HOME}/app:{HOME}/{runtime}/src"


class Machine:
    def __init__(self, job):
        self.job = job
        own = read_environment(job["environment_file"])
        self.environment = own | {
            "DJANGO_SETTINGS_MODULE": "bench.project.settings",
            "PYTHONPATH": python_path("runtime"),
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "STATIC_ROOT": str(HOME / "static"),
            "BENCH_UPSTREAM_PORT": str(UPSTREAM_PORT),
        }
        self.identity = {"user": job["user"], "group": job["group"], "extra_groups": []}
        self.running = {}
        self.checked = {}

    def environment_of(self, service):
        own = {"BENCH_SERVICE": service.name, "PYTHONPATH": python_path(service.runtime)}
        return self.environment | own | service.environment

    def python(self, *arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=HOME,
            env=self.environment | {"BENCH_DATABASE": "direct", "BENCH_SERVICE": "seed"},
            capture_output=True,
            text=True,
            check=False,
            **self.identity,
        )
        if done.returncode:
            raise RefusedError(f"{' '.join(arguments)}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def begin(self):
        (HOME / "log").mkdir(exist_ok=True)
        self.rows = json.loads(self.python("-m", "bench.project.seed", "make"))
        self.cookie = f"sessionid={self.rows['session']}"
        alone = json.loads(self.python("-m", "bench.project.alone", str(self.rows["row"])))
        upstream = ["-m", "bench.upstream", str(UPSTREAM_PORT)]
        self.upstream = subprocess.Popen([sys.executable, *upstream], cwd=HOME, **self.identity)
        self.connections = Connections(self.job["database_user"], self.job["postgresql_port"])
        tell(machine=describe(), versions=versions(), alone=alone)

    def service(self, name):
        if name not in self.running:
            port = FIRST_PORT + list(SERVICES).index(name)
            self.running[name] = Running(SERVICES[name], port, self)
            self.running[name].ready()
        return self.running[name]

    def keep(self, names):
        """What no later group asks for holds memory and connections for nothing."""
        for name in set(self.running) - set(names):
            self.running.pop(name).stop()

    # --- HTTP

    def prove(self, contestant, endpoint):
        """The same answer from all, or a figure would say nothing."""
        path = contestant.path(endpoint, self.rows["row"])
        status, body = get(self.service(contestant.service).port, path, self.cookie)
        with contextlib.suppress(ValueError):
            body = json.loads(body)
        if status != 200:
            raise RefusedError(f"{contestant.name} answers {path} with {status}: {str(body)[:300]}")
        first = self.checked.setdefault(endpoint, (contestant.name, body))
        if body != first[1]:
            raise RefusedError(
                f"{contestant.name} answers {path} otherwise than {first[0]}: {str(body)[:300]}"
            )

    def wrk(self, contestant, group, seconds):
        port = self.service(contestant.service).port
        scheme, port = ("https", port + TLS) if group.path == "nginx" else ("http", port)
        command = [
            HOME / "wrk/wrk",
            "-t1",
            f"-c{group.clients}",
            f"-d{seconds}s",
            "--timeout",
            "60s",
            "--latency",
        ]
        if group.endpoint == "session":
            command += ["-H", f"Cookie: {self.cookie}"]
        command.append(f"{scheme}://127.0.0.1:{port}{contestant.path(group.endpoint, self.rows['row'])}")
        environment = {"LD_LIBRARY_PATH": str(HOME / "wrk")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return wrk.parse(done.stdout + done.stderr)

    def fresh_pool(self):
        """PgBouncer closes what an earlier contestant made it open, and opens what this one needs.

        An earlier one may have taken all of PostgreSQL's connections. Where PgBouncer wanted one meanwhile,
        it refuses whoever comes, until it is let in again: that is not to be an error of this contestant.
        """
        where = ["-h", self.job["pgbouncer_directory"], "-p", str(self.job["pgbouncer_port"])]
        subprocess.run(
            ["/usr/sbin/runuser", "-u", "pgbouncer", "--", "psql", *where, "-c", "RECONNECT", "pgbouncer"],
            cwd="/",
            check=True,
            capture_output=True,
        )  # fmt: skip
        wait_for(self.pool_answers, "PgBouncer does not answer")

    def pool_answers(self):
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(self.environment["DATABASE_URL"]) as connection,
        ):
            return connection.execute("SELECT 1").fetchone()

    def cell(self, name, group):
        contestant = CONTESTANTS[name]
        service = self.service(contestant.service)
        direct = "BENCH_DATABASE" in service.service.environment
        with self.connections.watched(service.service.name if direct else None) as connections:
            if group.endpoint in DATABASE_ENDPOINTS and not direct:
                self.fresh_pool()
            cpu = service.cpu_seconds()
            figures = self.wrk(contestant, group, group.seconds)
            cpu = service.cpu_seconds() - cpu
        memory = service.memory_mb()
        service.rest()
        return {
            "contestant": name,
            "endpoint": group.endpoint,
            "clients": group.clients,
            "path": group.path,
            "rps": figures.rps,
            "p50_ms": figures.p50_ms,
            "p99_ms": figures.p99_ms,
            "errors": figures.errors,
            "rss_mb": memory,
            "pg_connections": max(connections),
            "cpu_ms": 1000 * cpu / figures.requests if figures.requests else math.nan,
        }

    def group(self, number, group, left):
        for name in group.contestants:
            self.prove(CONTESTANTS[name], group.endpoint)
        if group.path == "nginx":
            self.through_nginx()
        for name in group.contestants:
            self.wrk(CONTESTANTS[name], group, plan.WARM_SECONDS)
            self.service(CONTESTANTS[name].service).rest()
        cell = group.seconds + plan.BETWEEN_SECONDS
        left -= len(group.contestants) * plan.WARM_SECONDS
        for turn in range(group.rounds):
            # every second round backwards, so that none always runs first
            for name in group.contestants[:: -1 if turn % 2 else 1]:
                tell(group=number, round=turn, left=round(left), cell=self.cell(name, group))
                left -= cell

    # --- nginx

    def through_nginx(self):
        """A server block for each contestant that runs, as the site's own, and over TLS."""
        blocks = "\n".join(
            f"""server {{
  listen 127.0.0.1:{running.port + TLS} ssl;
  access_log {NGINX_LOG} pergola buffer=64k flush=5s;
  location / {{
    include /etc/nginx/snippets/proxy.conf;
    proxy_pass http://127.0.0.1:{running.port};
  }}
}}"""
            for running in self.running.values()
        )
        if not NGINX_SITE.exists() or NGINX_SITE.read_text() != blocks:
            NGINX_SITE.write_text(blocks)
            subprocess.run(["/usr/sbin/nginx", "-s", "reload"], check=True, capture_output=True)

            def listens():
                with contextlib.suppress(OSError):
                    for running in self.running.values():
                        socket.create_connection(("127.0.0.1", running.port + TLS), timeout=5).close()
                    return True

            wait_for(listens, "nginx does not listen")

    # --- WebSockets

    def websockets(self, most):
        """Two Daphne processes, with a socket each, as behind nginx; the client goes past nginx."""
        sockets = HOME / "sockets"
        sockets.mkdir(exist_ok=True)
        shutil.chown(sockets, self.job["user"], self.job["group"])
        paths = [str(sockets / f"{number}.sock") for number in (1, 2)]
        command = "python -m pergola_runtime.daphne --unix-socket {path} bench.project.asgi:application"
        services = [
            Running(Service(f"websocket-{number}", command.format(path=path)), 0, self)
            for number, path in enumerate(paths, 1)
        ]
        try:
            for path in paths:
                wait_for(lambda path=path: accepts(path), f"{path} does not answer")
            before = sum(service.memory_mb() for service in services)
            client = subprocess.Popen(
                [sys.executable, "-m", "bench.sockets", str(most), *paths],
                cwd=HOME,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            opened = json.loads(client.stdout.readline())
            tell(progress=f"{opened['connections']:,} WebSockets are open")
            memory = sum(service.memory_mb() for service in services) - before
            client.stdin.write("\n")
            client.stdin.flush()
            broadcast = json.loads(client.stdout.readline())
            client.wait(PATIENCE)
            tell(
                websockets={
                    "processes": len(services),
                    **opened,
                    "kb_per_connection": round(1024 * memory / max(1, opened["connections"]), 1),
                    **broadcast,
                }
            )
        finally:
            for service in services:
                service.stop()

    # --- the run

    def run(self):
        groups = [
            plan.Group(**group | {"contestants": tuple(group["contestants"])}) for group in self.job["groups"]
        ]
        left = plan.takes(groups) + self.job["websockets_seconds"]
        for number, group in enumerate(groups):
            self.group(number, group, left)
            left -= group.takes
            later = {
                CONTESTANTS[name].service for group in groups[number + 1 :] for name in group.contestants
            }
            self.keep(later)
        if self.job["websockets"]:
            self.websockets(self.job["websockets"])
        tell(done=True)


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def versions():
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return (
        {"python": platform.python_version()}
        | found
        | {
            "postgresql": first_line("/usr/lib/postgresql/17/bin/postgres", "--version").split()[2],
            "pgbouncer": first_line("/usr/sbin/pgbouncer", "--version").split()[1],
            "nginx": first_line("/usr/sbin/nginx", "-v").rpartition("/")[2],
            "wrk": first_line(
                "/usr/bin/env", f"LD_LIBRARY_PATH={HOME}/wrk", str(HOME / "wrk/wrk"), "-v"
            ).split()[1],
        }
    )


def describe():
    processor = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "processor": processor,
        "memory_gb": round(memory / 2**30),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
    }


def clean():
    """Nothing is left: no server block, no row; this directory goes last, by whoever called."""
    if NGINX_SITE.exists():
        NGINX_SITE.unlink()
        subprocess.run(["/usr/sbin/nginx", "-s", "reload"], check=True, capture_output=True)
        NGINX_LOG.unlink(missing_ok=True)
    Machine(json.loads((HOME / "job.json").read_text())).python("-m", "bench.project.seed", "remove")


def end_with_input(lines):
    """The job's line, then nothing until the control machine goes."""
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    if sys.argv[1:] == ["clean"]:
        clean()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("measure: told to stop"))
    lines = queue.SimpleQueue()
    threading.Thread(target=end_with_input, args=[lines], daemon=True).start()
    job = json.loads(lines.get(timeout=PATIENCE))
    (HOME / "job.json").write_text(json.dumps(job))
    machine = Machine(job)
    try:
        machine.begin()
        machine.run()
    except (RefusedError, wrk.NoFiguresError) as error:
        tell(refused=str(error))
        sys.exit(1)
    finally:
        machine.keep(())
        if hasattr(machine, "upstream"):
            machine.upstream.kill()


if __name__ == "__main__":
    main()
