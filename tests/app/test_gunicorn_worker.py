import re
import signal
import socket
import statistics
import struct

import pytest
from app.servers import PROXY, gunicorn, read, send
from waiting import wait_until

STOCK = "uvicorn_worker.UvicornWorker"
DATA_SEGMENTS_IN = 152  # where tcpi_data_segs_in stands in linux/tcp.h's tcp_info


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
        wait_until((tmp_path / "held").exists, "the request to run")
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
        wait_until((tmp_path / "held").exists, "the request to run")
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
        wait_until((tmp_path / "held").exists, "the request to run")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "timeout graceful shutdown exceeded" in server.log()
        assert "SIGKILL" not in server.log()


def test_serving_takes_the_client_and_the_scheme_from_nginxs_headers(tmp_path):
    own = {"PERGOLA_APPLICATION": "asgi_apps:http"}
    with gunicorn(tmp_path / "web.sock", "pergola_runtime.serving:application", env=own) as server:
        assert server.get(headers=PROXY).endswith(b"https ('192.0.2.7', 0)")


def packets(server, answers):
    """How many of them with data a client gets for so many short answers on one connection."""
    port = re.search(r"http://127\.0\.0\.1:(\d+)", server.log())[1]
    with socket.create_connection(("127.0.0.1", int(port)), 60) as client:
        for _ in range(answers):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b")"):  # behind the client's address
                data = client.recv(65536)
                assert data, answer
                answer += data
        known = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", known, DATA_SEGMENTS_IN)[0]


@pytest.mark.parametrize(("worker", "each"), [("ours", 1), (STOCK, 2)])
def test_a_short_answer_is_one_packet(tmp_path, worker, each):
    """The day it fails for the stock worker, uvicorn does so by itself."""
    chosen = {} if worker == "ours" else {"worker": worker}
    options = ["--bind", "127.0.0.1:0"]
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", *options, **chosen) as server:
        server.get()
        # On a busy machine some packets are sent again or are merged, in a few of the counts.
        assert statistics.mode(packets(server, 5) for _ in range(20)) == 5 * each


def test_the_head_of_an_answer_waits_for_no_body(tmp_path):
    env = {"SCRATCH": str(tmp_path)}
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", env=env) as server, server.connect() as client:
        send(client, "/headed")
        head = client.recv(65536)
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        (tmp_path / "go").touch()
        assert read(client).startswith(b"http ")


@pytest.mark.parametrize("says_its_last", [False, True])
def test_an_answer_without_a_body_and_a_refusal_are_sent_whole(tmp_path, says_its_last):
    """Also to a client that has said that it sends nothing more, upon which uvloop closes."""
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http") as server:
        for asked, answered in (
            (b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200"),
            (b"nothing that HTTP knows\r\n\r\n", b"HTTP/1.1 400"),
        ):
            with server.connect() as client:
                client.sendall(asked.replace(b"Connection: close\r\n", b"") if says_its_last else asked)
                if says_its_last:
                    client.shutdown(socket.SHUT_WR)
                answer = read(client)
                assert answer.startswith(answered)
                assert b"\r\n\r\n" in answer


def test_a_part_of_a_stream_waits_for_no_other(tmp_path):
    env = {"SCRATCH": str(tmp_path)}
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", env=env) as server, server.connect() as client:
        send(client, "/parts")
        got = b""
        while not got.endswith(b"two"):  # while the event loop is held
            data = client.recv(65536)
            assert data, got
            got += data
        (tmp_path / "go").touch()
        assert read(client) == b"end"


def test_a_large_answer_comes_whole_behind_its_head(tmp_path):
    with gunicorn(tmp_path / "web.sock", "asgi_apps:http", env={"SCRATCH": str(tmp_path)}) as server:
        head, body = server.get("/large").split(b"\r\n\r\n", 1)
        assert b"content-length: 4000000" in head
        assert body == b"x" * 4_000_000
