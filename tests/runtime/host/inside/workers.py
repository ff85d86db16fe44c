"""HTTP servers, with one worker each, that serve a project of these tests; a client for their sockets."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
HANDLERS = ("django", "lean")
# As their unit starts them (infra/systemd/system/app-web@.service.j2): on descriptor 3, systemd's socket.
SERVING = "pergola_runtime.serving:application"
GUNICORN = ["gunicorn", SERVING, "-w", "1", "--no-control-socket", "-k"]
SERVERS = {
    "gunicorn": [*GUNICORN, "pergola_runtime.gunicorn.DrainingUvicornWorker"],
    "gunicorn-asgi": [*GUNICORN, "pergola_runtime.gunicorn_asgi.SignalSafeASGIWorker"],
    "uvicorn": ["uvicorn", SERVING, "--fd", "3"],
    "hypercorn": ["hypercorn", "pergola_runtime.hypercorn:application", "--bind", "fd://3", "-k", "uvloop"],
    "granian": ["python", "-m", "pergola_runtime.granian", SERVING, "--interface", "asgi"],
    "daphne": ["python", "-m", "pergola_runtime.daphne", "--systemd", SERVING],
}
# The others take minutes, so they are make test-full's.
TESTED_SERVERS = [*SERVERS] if os.environ.get("FULL") else ["gunicorn"]
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
def working(
    handler, directory, agent="", url="", server="gunicorn", site="agentsite", max_age=0, environment=()
):
    """A server of this project on the database of `directory`. Requests wait until it serves."""
    place = Path(tempfile.mkdtemp(prefix="lean-", dir="/tmp"))
    (place / "newrelic.ini").write_text(NEW_RELIC)
    command = ["newrelic-admin", "run-program"] if agent == "newrelic" else []
    known = {
        "AGENT": agent,
        "COLLECTOR": url,
        "DJANGO_SETTINGS_MODULE": site,
        "LEAN_HOST": str(directory),
        "LEAN_PORT": "6432",
        "NEW_RELIC_CONFIG_FILE": str(place / "newrelic.ini"),
        "NO_PROXY": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PERGOLA_APPLICATION": f"{site}:application",
        "PERGOLA_CONN_MAX_AGE": str(max_age),
        "PERGOLA_HANDLER": handler,
        "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
    }
    with socket.socket(socket.AF_UNIX) as listening, (place / "log").open("w") as log:
        listening.bind(str(place / "socket"))
        listening.listen(1000)

        def hand_over():
            os.dup2(listening.fileno(), 3)
            os.set_inheritable(3, True)  # it may have been that one already

        # systemd says whom the socket is for
        named = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$@"'
        process = subprocess.Popen(
            ["sh", "-c", named, "sh", *command, *SERVERS[server]],
            cwd=place,
            env=os.environ | known | dict(environment),
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=hand_over,
            close_fds=False,
        )
    try:
        yield Worker(process, place)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        shutil.rmtree(place)
