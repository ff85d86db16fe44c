"""Real services for the runtime's tests: a Redis that a test may stop, restart and suspend."""

import contextlib
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import debian
import pytest
import redis
from app.servers import redis_program
from waiting import wait_until

# commands that open a connection or ask for its state
OVERHEAD = {"auth", "client", "config", "hello", "info", "ping", "select"}


class RedisProcess:
    """A Redis on a TCP port and on a unix socket."""

    def __init__(self, directory):
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.process = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.unix_url = f"unix://{self.socket}"

    def start(self, *options):
        command = ["redis-server", "--port", str(self.port), "--unixsocket", self.socket, "--save", ""]
        command += ["--dir", self.directory, "--enable-debug-command", "yes", *options]
        self.process = subprocess.Popen(command, executable=redis_program(), stdout=subprocess.DEVNULL)

    def wait(self):
        def ready():
            assert self.process.poll() is None, "redis-server exited"
            return answers(client)

        with contextlib.closing(self.client()) as client:
            wait_until(ready, "Redis")

    def client(self, **options):
        """One whose failures count as they are: no retry."""
        return redis.Redis(port=self.port, socket_timeout=10, retry=redis.retry.Retry(NoWait(), 0), **options)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def suspend(self):
        self.process.send_signal(signal.SIGSTOP)
        # SIGSTOP takes effect some time after kill() has returned
        wait_until(lambda: self.state() == "T", "Redis to be suspended")

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def state(self):
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def counts(self):
        """How many commands it has run, without OVERHEAD, and how many connections it has accepted."""
        with contextlib.closing(self.client()) as client:
            client.ping()  # after it, what was sent earlier has run
            commands = {
                name.removeprefix("cmdstat_").partition("|")[0]: found["calls"]
                for name, found in client.info("commandstats").items()
            }
            run = sum(calls for name, calls in commands.items() if name not in OVERHEAD)
            return run, client.info("stats")["total_connections_received"]

    def connections(self):
        """How many clients there are, but for the one that asks."""
        with contextlib.closing(self.client()) as client:
            return len([one for one in client.client_list() if "client" not in one["cmd"]])


def free_port():
    """Below the ports that the kernel gives to outgoing connections, one of which could take it meanwhile."""
    for port in random.sample(range(20000, 30000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


class NoWait(redis.backoff.NoBackoff):
    pass


def answers(client):
    with contextlib.suppress(redis.RedisError):
        return client.ping()
    return False


@pytest.fixture(scope="session", autouse=True)
def redis_is_installed():
    if not redis_program():
        assert debian.may_install(), "needs redis-server: apt-get install redis-tools"
        debian.install("redis-tools")


@pytest.fixture
def redis_process(tmp_path):
    found = RedisProcess(tmp_path)
    found.start()
    try:
        found.wait()
        yield found
    finally:
        if found.process.poll() is None:
            found.resume()
            found.kill()


@pytest.fixture
def elapsed(record_property, capsys):
    """Measures a call: its result or exception, and seconds. The figure is printed."""

    def measure(what, function, *arguments):
        began = time.monotonic()
        try:
            result = function(*arguments)
        except Exception as error:
            result = error
        seconds = time.monotonic() - began
        with capsys.disabled():
            print(f"\n  {what}: {seconds:.2f} s", end="")
        return result, seconds

    return measure
