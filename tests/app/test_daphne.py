import asyncio
import contextlib
import signal
import socket
import time

import pytest
from app.servers import PROXY, daphne, read, send, serving
from pergola_runtime.daphne import DrainingCommandLine
from waiting import wait_until
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed

APPLICATION = "asgi_apps:channels_application"
SOCKETS = 20
# a client's frames, masked with zeros
MESSAGE = b"\x81\x81" + bytes(4) + b"x"
CLOSE = b"\x88\x80" + bytes(4)


async def close_codes_after_sigterm(server, count):
    """Open the sockets, see each one echo, stop the server, and return what each client was told."""
    server.connect().close()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        clients = [await unix_connect(str(server.path), "ws://localhost/") for _ in range(count)]
        for number, client in enumerate(clients):
            await client.send(str(number))
            assert await client.recv() == str(number)
        server.signal(signal.SIGTERM)

        async def last_word(client):
            with pytest.raises(ConnectionClosed):
                await client.recv()
            return client.close_code

        words = [group.create_task(last_word(client)) for client in clients]
    return [word.result() for word in words]


def test_every_websocket_hears_service_restart_and_every_disconnect_runs(tmp_path):
    with daphne(tmp_path / "ws.sock", APPLICATION, env={"SCRATCH": str(tmp_path)}) as server:
        assert asyncio.run(close_codes_after_sigterm(server, SOCKETS)) == [1012] * SOCKETS
        assert server.exit_code() == 0, server.log()
    assert len((tmp_path / "disconnected").read_text().split()) == SOCKETS
    assert server.log() == ""


async def close_code_of(server, message):
    server.connect().close()
    async with asyncio.timeout(30), unix_connect(str(server.path), "ws://localhost/") as client:
        await client.send(message)
        with contextlib.suppress(ConnectionClosed):
            while True:
                assert await client.recv() == message
                await client.close()
    return client.close_code


@pytest.mark.parametrize(("size", "code"), [(1000, 1000), (1001, 1009), (1_000_000, 1009)])
def test_a_message_above_the_limit_closes_its_websocket_with_1009(tmp_path, size, code):
    limits = ["--websocket-max-message-size", "1000", "--websocket-max-frame-size", "1000"]
    with daphne(tmp_path / "ws.sock", APPLICATION, *limits, env={"SCRATCH": str(tmp_path)}) as server:
        assert asyncio.run(close_code_of(server, "x" * size)) == code


def test_stock_daphne_drops_them_without_a_word(tmp_path):
    """The day this fails, Daphne drains by itself and the subclass can go."""
    with daphne(tmp_path / "ws.sock", APPLICATION, module="daphne", env={"SCRATCH": str(tmp_path)}) as server:
        assert asyncio.run(close_codes_after_sigterm(server, 3)) == [1006] * 3
        server.exit_code()
    assert not (tmp_path / "disconnected").exists()


@contextlib.contextmanager
def told_to_close(tmp_path):
    """A server that was told to stop, and a client that has read its close frame."""
    handshake = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    env = {"SCRATCH": str(tmp_path)}
    with daphne(tmp_path / "ws.sock", APPLICATION, env=env) as server, server.connect() as client:
        client.sendall(handshake)
        assert client.recv(65536).startswith(b"HTTP/1.1 101")
        server.signal(signal.SIGTERM)
        assert client.recv(65536).endswith(b"\x03\xf4service restart")
        yield client
        assert server.exit_code() == 0
    assert "cutting" not in server.log()


def test_a_client_that_never_answers_the_close_does_not_hold_the_exit(tmp_path):
    with told_to_close(tmp_path) as client:
        assert read(client) == b""


def test_a_client_may_answer_the_close_later_and_send_until_then(tmp_path):
    with told_to_close(tmp_path) as client:
        time.sleep(2)  # Autobahn's own limit is 1
        client.sendall(MESSAGE)
        client.sendall(CLOSE)
        assert read(client) == b""


@pytest.mark.parametrize("path", ["/held", "/large"])
def test_a_running_http_request_is_finished_before_the_exit(tmp_path, path):
    with daphne(tmp_path / "ws.sock", APPLICATION, env={"SCRATCH": str(tmp_path)}) as server:
        with server.connect() as client:
            send(client, path)
            wait_until((tmp_path / "held").exists, "the request to run")
            server.signal(signal.SIGTERM)
            wait_until(lambda: not server.path.exists(), "the socket to close")
            (tmp_path / "go").touch()
            head, body = read(client).split(b"\r\n\r\n", 1)
            assert f"content-length: {len(body)}".encode() in head.lower()
        assert server.exit_code() == 0


def test_a_response_that_fails_when_it_has_begun_is_cut(tmp_path):
    """At Daphne's next look at its applications, once a second, which the first one does not end."""
    with daphne(tmp_path / "ws.sock", APPLICATION) as server:
        for _ in range(2):
            with server.connect() as client:
                send(client, "/fails")
                answer = read(client)  # to its end; it would wait for 60 s, and fail
            assert b"one" in answer
            assert not answer.endswith(b"0\r\n\r\n")  # the end of a whole response


def test_what_does_not_end_is_cut_at_the_limit(tmp_path):
    options, env = ["--graceful-timeout", "1"], {"SCRATCH": str(tmp_path)}
    with daphne(tmp_path / "ws.sock", APPLICATION, *options, env=env) as server, server.connect() as client:
        send(client, "/endless")
        wait_until((tmp_path / "held").exists, "the request to run")
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    assert "cutting the rest" in server.log()


def test_an_instance_finds_its_socket_and_replaces_the_one_a_killed_predecessor_left(tmp_path):
    (tmp_path / "blue").mkdir()
    path = tmp_path / "blue" / "websocket-2.sock"
    arguments = [
        "pergola_runtime.daphne",
        "--instance",
        "blue-2",
        "--runtime-directory",
        str(tmp_path),
        APPLICATION,
    ]
    with serving(arguments, path) as killed:
        killed.connect().close()
        killed.process.kill()
        killed.exit_code()
    assert path.is_socket()
    with serving(arguments, path) as server:
        assert server.get().startswith(b"HTTP/1.1 200")


def refusal(*arguments):
    with pytest.raises(SystemExit) as refused:
        DrainingCommandLine().run([*arguments, APPLICATION])
    (line,) = refused.value.code.splitlines()
    return line


@pytest.mark.parametrize("name", ["blue", "blue-0", "blue-01", "../etc-1", "blue-1/x", "Blue-1", "blue-1\n"])
def test_an_instance_that_is_no_instance_is_refused_in_one_line(name):
    assert "is not <slot>-<number>" in refusal("--instance", name)


def test_without_a_socket_it_does_not_fall_back_to_a_port():
    assert "one of --instance, --unix-socket and --systemd" in refusal()


def test_a_living_process_is_not_robbed_of_its_socket(tmp_path):
    path = tmp_path / "ws.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        assert "answered by another process" in refusal("--unix-socket", str(path))
    assert path.exists()


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path):
    path = tmp_path / "ws.sock"
    path.write_text("precious")
    assert "not a socket" in refusal("--unix-socket", str(path))
    assert path.read_text() == "precious"


def test_the_client_is_the_one_that_the_proxy_names(tmp_path):
    with daphne(tmp_path / "ws.sock", APPLICATION) as server:
        assert server.get(headers=PROXY).endswith(b"https ['192.0.2.7', 0]")
