"""Each server of app_http_server, by its unit's own line, on a socket as systemd hands it over.

What docs/servers.md says that it can is compared with what it did: who runs these has no other table to mend.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from app.servers import HERE, PROXY, Running, read, send
from house import ROOT, options, read_yaml, servers_table
from waiting import wait_until
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import unix_connect

UNIT = "etc/systemd/system/app-web@.service"
SERVERS = options("app")["app_http_server"]["choices"]
# what a person would tell each to end TLS itself; here nginx does
TLS = {
    "gunicorn": "gunicorn -k {worker} --bind 127.0.0.1:{port} --certfile {certificate} --keyfile {key}",
    "uvicorn": "uvicorn --port {port} --ssl-certfile {certificate} --ssl-keyfile {key}",
    "hypercorn": "hypercorn --bind 127.0.0.1:{port} --certfile {certificate} --keyfile {key}",
    "granian": "granian --interface asgi --port {port} --ssl-certificate {certificate} --ssl-keyfile {key}",
    "daphne": "daphne -e ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
}
TLS["gunicorn-asgi"] = TLS["gunicorn"] + " --http-protocols h2,h1"


def yes(cell):
    """The first word counts, what stands behind it says what it takes."""
    word = re.match(r"yes|no\b", cell)
    assert word, f"{cell!r} begins with neither yes nor no"
    return word[0] == "yes"


def directive(unit, name):
    """Its values, with the specifiers worked out."""
    return re.findall(rf"^{name}=(.*)$", unit.replace("\\\n", " ").replace("%i", "blue"), re.M)


@contextlib.contextmanager
def started(command, path, **options):
    with Path(f"{path}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=HERE, stdout=log, stderr=log, start_new_session=True, **options
        )
        try:
            yield Running(process, Path(log.name), path)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def serving(server, tmp_path):
    """The unit of this server, as systemd starts it: descriptor 3, and the unit's own variables."""
    unit = (server / UNIT).read_text()
    venv = tmp_path / "home/slots/blue/venv"
    venv.parent.mkdir(parents=True)
    venv.symlink_to(Path(sys.prefix))
    path = tmp_path / "web.sock"
    (command,) = directive(unit, "ExecStart")
    told = dict(line.split("=", 1) for line in directive(unit, "Environment"))
    told |= re.findall(r'^(PERGOLA_\w+)="(.*)"$', (server / "etc/app/app.env").read_text(), re.M)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o660)
        listening.listen()

        def hand_over():
            os.dup2(listening.fileno(), 3)
            os.set_inheritable(3, True)  # it may have been that one all along

        # systemd says whom the socket is for
        named = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$@"'
        with started(
            ["sh", "-c", named, "sh", *shlex.split(command)],
            path,
            env=os.environ | told | {"PYTHONPATH": str(ROOT / "runtime/src"), "SCRATCH": str(tmp_path)},
            preexec_fn=hand_over,
            close_fds=False,
        ) as running:
            yield running


def speaks_http_2(path):
    plain = httpx.HTTPTransport(uds=str(path), http1=False, http2=True)
    with httpx.Client(transport=plain, timeout=20) as client, contextlib.suppress(httpx.TransportError):
        return client.get("http://localhost/version").text.startswith("2")
    return False


def greets_a_websocket(path):
    try:
        with unix_connect(str(path), "ws://localhost/", open_timeout=10) as connection:
            return connection.recv(timeout=10) == "hello"
    except (InvalidHandshake, EOFError):
        return False


def test_the_table_has_a_row_for_each_server():
    assert list(servers_table()) == SERVERS


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_does_what_the_table_says_and_finishes_what_runs(server_with, tmp_path, name):
    """Stopped, it leaves the socket as it was: its mode and its path are systemd's."""
    own = {"app_home": str(tmp_path / "home"), "app_web_workers": 2, "app_asgi": "asgi_apps:everything"}
    with serving(server_with(app_http_server=name, **own), tmp_path) as running:
        assert re.search(rb"https [\[(]'192.0.2.7', 0[\])]$", running.get(headers=PROXY)), running.log()
        named = running.get("/server", headers=PROXY, host="app.example.org:8443")
        assert b"('app.example.org', 8443)" in named, running.log()
        large = f"{PROXY}Cookie: large={'a' * 32_000}\r\n"  # as much as nginx passes on
        assert running.get("/?" + "q" * 6_000, headers=large).startswith(b"HTTP/1.1 200"), running.log()
        told = servers_table()[name]
        assert {
            "HTTP/2 without TLS": speaks_http_2(running.path),
            "WebSocket": greets_a_websocket(running.path),
            "lifespan": b"lifespan" in running.get("/version"),
        } == {column: yes(told[column]) for column in ("HTTP/2 without TLS", "WebSocket", "lifespan")}
        with running.connect() as client:
            send(client, "/held")
            wait_until((tmp_path / "held").exists, "the request to run")
            running.signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                running.process.wait(1.5)  # meanwhile the other worker has nothing left to do
            (tmp_path / "go").touch()
            assert b" 200" in read(client).split(b"\r\n")[0], running.log()
        assert running.exit_code() == 0
        assert stat.S_IMODE(running.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gunicorn", "Handling signal: term"),
        ("gunicorn-asgi", "Handling signal: term"),
        ("granian", "Shutting down"),
    ],
)
def test_a_server_hears_a_stop_while_its_workers_start(server_with, tmp_path, name, says):
    """A worker that did not would serve on, and be killed after the time to drain with what it serves."""
    own = {"app_home": str(tmp_path / "home"), "app_web_workers": 2, "app_asgi": "asgi_apps:everything_late"}
    # more than the test waits for the end
    with serving(server_with(app_http_server=name, app_drain_seconds=600, **own), tmp_path) as running:
        wait_until(lambda: len(list(tmp_path.glob("imports-*"))) == 2, "both workers to import")
        running.signal(signal.SIGTERM)
        running.says(says)
        (tmp_path / "imported").touch()
        assert running.exit_code() == 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate of this machine's, and its key."""
    folder = tmp_path_factory.mktemp("pair")
    made = {"key": folder / "key.pem", "certificate": folder / "certificate.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", made["key"], "-out", made["certificate"]]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.mark.parametrize("name", SERVERS)
def test_the_table_says_who_speaks_http_2_with_tls(tmp_path, pair, name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kind = (
        "gunicorn_asgi.SignalSafeASGIWorker" if name == "gunicorn-asgi" else "gunicorn.DrainingUvicornWorker"
    )
    worker = f"pergola_runtime.{kind}"
    command = TLS[name].format(port=port, worker=worker, **pair).split()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
    with (
        started(
            [sys.executable, "-m", *command, "asgi_apps:everything"], tmp_path, env=environment
        ) as running,
        httpx.Client(verify=ssl.create_default_context(cafile=pair["certificate"]), http2=True) as client,
    ):

        def asked():
            with contextlib.suppress(httpx.ConnectError):
                return client.get(f"https://127.0.0.1:{port}/version", timeout=20)

        answer = wait_until(asked, running.log)
    assert answer.status_code == 200
    assert (answer.http_version == "HTTP/2") == yes(servers_table()[name]["HTTP/2 with TLS"])


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_a_worker_may_never_start_anew(server_with, name):
    """Of 0 requests, which gunicorn takes for that, these would make a worker for each."""
    server = server_with(app_http_server=name, app_web_max_requests=0)
    (command,) = directive((server / UNIT).read_text(), "ExecStart")
    assert "max-requests" not in command


@pytest.mark.parametrize("name", SERVERS)
def test_a_release_brings_its_server_and_no_other(name):
    """It stands in the runtime's lock, or in one that is taken where it was asked for."""
    brought, asked = (
        re.findall(r"^([a-z-]+)==", (ROOT / f"requirements/{lock}.txt").read_text(), re.M)
        for lock in ("runtime", "servers")
    )
    package = name.split("-")[0]
    assert package in asked if package not in brought else True
    locks = read_yaml(ROOT / "infra/ansible/roles/deploy/vars/main.yml")["__deploy_locks"]
    assert (f"'{name}'" in locks) == (package not in brought)
