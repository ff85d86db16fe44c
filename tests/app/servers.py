"""Real servers for the tests: started as a unit would start them, on a unix socket, and always stopped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import debian
import pytest
from waiting import wait_until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 60
PYTHONPATH = {"PYTHONPATH": f"{ROOT / 'runtime/src'}:{ROOT / 'app'}"}
PROXY = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n"  # what nginx sets


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        return None
    return client


def read(client):
    """Everything until the server closes; empty when it closes or resets without an answer."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def send(client, path="/", headers="", host="localhost"):
    with contextlib.suppress(BrokenPipeError):
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode())


class Running:
    def __init__(self, process, log, path):
        self.process, self.log_path, self.path = process, log, path

    def log(self):
        return self.log_path.read_text()

    def says(self, text):
        return wait_until(lambda: text in self.log(), f"{text!r} in the log:\n{self.log()}")

    def connect(self):
        return wait_until(lambda: connect(self.path), f"{self.path}; the log:\n{self.log()}")

    def get(self, path="/", **kwargs):
        with self.connect() as client:
            send(client, path, **kwargs)
            return read(client)

    def signal(self, signum):
        self.process.send_signal(signum)

    def exit_code(self):
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def serving(arguments, path, *, cwd=HERE, env=None):
    log = Path(f"{path}.log")
    environment = os.environ | PYTHONPATH | (env or {})
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=environment,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield Running(process, log, path)
    finally:
        # The workers too, and at once: what a test has to say about stopping it has said.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def gunicorn(path, application, *options, worker="pergola_runtime.gunicorn.DrainingUvicornWorker", **kwargs):
    arguments = ["gunicorn", application, "-k", worker, "-w", "1", "--bind", f"unix:{path}"]
    return serving([*arguments, "--no-control-socket", *options], path, **kwargs)


def daphne(path, application, *options, module="pergola_runtime.daphne", **kwargs):
    return serving([module, "--unix-socket", str(path), *options, application], path, **kwargs)


def redis_program():
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


@contextlib.contextmanager
def redis_server(directory, password=""):
    """A Redis of the test's own; yields its URL."""
    # redis-tools has the same program under this name, without a service; argv[0] decides what it is
    program = redis_program()
    if not program and debian.may_install():
        debian.install("redis-tools")
        program = redis_program()
    if not program:
        pytest.skip("needs redis-server: apt-get install redis-tools")
    path = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", directory]
    command += ["--requirepass", password]
    process = subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "Redis")
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait()


def parts(path, redis="redis://app:hush@127.0.0.1:1/0"):
    """A SQLite database, and a Redis that refuses unless one is given."""
    url = f"sqlite:///{path}"
    return {"DATABASE_URL": url, "DATABASE_DIRECT_URL": url, "REDIS_URL": redis}


def manage(env, *arguments, cwd=ROOT / "app"):
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | PYTHONPATH | env, check=True, capture_output=True, text=True
    )
