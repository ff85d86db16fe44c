import signal

import pytest
from app.servers import PROXY, gunicorn, read, send, wait_for

STOCK = "uvicorn_worker.UvicornWorker"


def accepted_but_silent(server):
    """A connection that the worker holds, as one is whose request is still on its way from nginx."""
    client = server.connect()
    # Connections are accepted in order: once a later one is answered, this one is the worker's.
    assert server.get().startswith(b"HTTP/1.1 200")
    return client


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_a_request_that_arrives_after_the_signal_is_answered(tmp_path, signum):
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http") as server, accepted_but_silent(server) as client:
        server.signal(signum)
        server.says("Draining")
        send(client)
        assert read(client).startswith(b"HTTP/1.1 200"), server.log()


def test_the_stock_worker_loses_that_request(tmp_path):
    """The day this fails, uvicorn drains by itself and the subclass can go."""
    with (
        gunicorn(tmp_path / "web.sock", "asgi_apps:http", worker=STOCK) as server,
        accepted_but_silent(server) as client,
    ):
        server.signal(signal.SIGTERM)
        server.says("Shutting down")
        send(client)
        assert read(client) == b""


def test_a_running_request_is_finished_before_the_exit(tmp_path):
    env = {"SCRATCH": str(tmp_path)}
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", env=env) as server, server.connect() as client:
        send(client, "/held")
        wait_for((tmp_path / "held").exists, "the request to run")
        server.signal(signal.SIGTERM)
        server.says("Draining")
        (tmp_path / "go").touch()
        assert read(client).startswith(b"HTTP/1.1 200")
        assert server.exit_code() == 0


def test_what_is_kept_until_the_loop_ends_is_closed_after_the_last_request(tmp_path):
    """Pooled clients: uvicorn alone ends the process by the same signal before its loop is closed."""
    env = {"SCRATCH": str(tmp_path)}
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", env=env) as server, server.connect() as client:
        server.get("/kept")
        send(client, "/held")
        wait_for((tmp_path / "held").exists, "the request to run")
        server.signal(signal.SIGTERM)
        server.says("Draining")
        (tmp_path / "go").touch()
        assert read(client).startswith(b"HTTP/1.1 200")
        assert server.exit_code() == 0
    assert (tmp_path / "closed").read_text() == "after the request"


def test_an_endless_request_is_cut_before_gunicorn_kills_the_worker(tmp_path):
    env = {"SCRATCH": str(tmp_path)}
    options = ["--graceful-timeout", "3"]
    with (
        gunicorn(tmp_path / "web.sock", "asgi_apps:http", *options, env=env) as server,
        server.connect() as client,
    ):
        send(client, "/endless")
        wait_for((tmp_path / "held").exists, "the request to run")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "timeout graceful shutdown exceeded" in server.log()
        assert "SIGKILL" not in server.log()


def test_the_proxys_headers_are_believed_where_the_unit_says_so(tmp_path):
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", "--forwarded-allow-ips", "*") as server:
        assert server.get(headers=PROXY).endswith(b"https ('192.0.2.7', 0)")
