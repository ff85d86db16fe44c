"""A slot serves if its health path answers 200, its WebSocket sockets connect, and its processes stay."""

import http.server
import itertools
import socket
import socketserver
import threading
from contextlib import contextmanager

import pytest


@contextmanager
def serving(host, slot="blue", status=200, websockets=2, afterwards=None):
    """`afterwards`: the status of all answers but the first."""
    answers = itertools.chain([status], itertools.repeat(afterwards or status))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"all is well"
            self.send_response(next(answers) if self.path == "/readyz" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "appctl"

        def log_message(self, *arguments):
            pass

    directory = host.directory / "run" / slot
    with socketserver.ThreadingUnixStreamServer(str(directory / "web.sock"), Handler) as server:
        listening = []
        for number in range(1, websockets + 1):
            one = socket.socket(socket.AF_UNIX)
            one.bind(str(directory / f"websocket-{number}.sock"))
            one.listen()
            listening.append(one)
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            yield
        finally:
            server.shutdown()
            for one in listening:
                one.close()


def test_a_slot_that_serves_passes(host):
    with serving(host):
        assert host.run("verify", "blue").returncode == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"status": 503}, "blue did not answer /readyz with 200, but with 503: all is well (tried for 0 s)"),
        ({"websockets": 1}, "or a WebSocket process accepted no connection: FileNotFoundError"),
    ],
)
def test_what_a_slot_answered_last_is_said(host, options, says):
    with serving(host, **options):
        done = host.run("verify", "blue", "--ready", "0.3")
    assert done.returncode == 1
    assert says in done.stderr


def test_a_slot_whose_processes_end_is_refused(host):
    # other processes at each look
    host.answers(**{"show*": (0, "1\n\n2\n\n3\n")})
    with serving(host):
        assert host.run("verify", "blue", "--steady", "0.1").returncode == 0
