"""Workers of gunicorn that serve agentsite.py, and a client for their unix sockets."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
HANDLERS = ("django", "lean")
PATIENCE = 120  # seconds; a worker starts in 2, and in 20 where the machine is busy
NEW_RELIC = """
[newrelic]
app_name = agentsite
license_key = 0123456789012345678901234567890123456789
developer_mode = true
startup_timeout = 30
transaction_tracer.enabled = false
slow_sql.enabled = false
browser_monitoring.enabled = false
event_harvest_config.harvest_limits.span_event_data = 10000
# without it only the first ten transactions of a minute have spans
distributed_tracing.sampler.root = always_on
"""


class Connection(http.client.HTTPConnection):
    """By a unix socket."""

    def __init__(self, path):
        super().__init__("testserver", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Worker:
    def __init__(self, process, directory):
        self.process = process
        self.directory = directory

    def log(self):
        return (self.directory / "log").read_text()

    def wait_until_it_serves(self):
        end = time.monotonic() + PATIENCE
        while "Started server process" not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def connect(self):
        return contextlib.closing(Connection(self.directory / "socket"))

    def request(self, path, method="GET", body=None, headers=None):
        """Status, body and cookie of the response; the connection is closed."""
        with self.connect() as connection:
            return ask(connection, path, method, body, headers)

    def together(self, paths):
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(self.request, paths))


def ask(connection, path, method="GET", body=None, headers=None):
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    try:
        content = response.read()
    except http.client.IncompleteRead as error:  # a stream that failed
        content = error.partial
    return response.status, content, (response.getheader("Set-Cookie") or "").partition(";")[0]


@contextlib.contextmanager
def working(handler, directory, agent="", url=""):
    """A worker of gunicorn with agentsite.py on the database of `directory`."""
    place = Path(tempfile.mkdtemp(prefix="lean-", dir="/tmp"))
    binaries = Path(sys.executable).parent
    (place / "newrelic.ini").write_text(NEW_RELIC)
    command = [binaries / "newrelic-admin", "run-program"] if agent == "newrelic" else []
    command += [binaries / "gunicorn", "agentsite:get_application()", "-w", "1", "--no-control-socket"]
    command += ["-k", "pergola_runtime.gunicorn.DrainingUvicornWorker", "--bind", f"unix:{place / 'socket'}"]
    environment = {
        "AGENT": agent,
        "COLLECTOR": url,
        "DJANGO_SETTINGS_MODULE": "agentsite",
        "LEAN_HOST": str(directory),
        "LEAN_PORT": "6432",
        "NEW_RELIC_CONFIG_FILE": str(place / "newrelic.ini"),
        "NO_PROXY": "127.0.0.1",
        "PERGOLA_HANDLER": handler,
        "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
    }
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=place, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Worker(process, place)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        shutil.rmtree(place)
