"""Daphne that drains on SIGTERM: `python -m pergola_runtime.daphne --instance blue-1 config.asgi:application`

With `--systemd` instead of an instance it takes the socket that systemd opened, to serve HTTP.

On SIGTERM, Daphne itself drops every WebSocket without a close frame, never runs the consumers' disconnect()
and cuts running HTTP requests (measured: 20 of 20 and 5 of 5). This one stops accepting, closes each
WebSocket with 1012 (service restart), spread over a few seconds so that clients do not reconnect at once,
waits for consumers and running requests up to a limit, and exits with 0.
"""

import asyncio
import contextlib
import functools
import logging
import math
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import daphne.server
from daphne.cli import CommandLineInterface
from daphne.http_protocol import WebRequest
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import defer, reactor
from twisted.web.http import HTTPChannel

from pergola_runtime.choice import consumers

logger = logging.getLogger(__name__)

SERVICE_RESTART = 1012
HEADERS = 256 * 1024  # bytes of a request's headers; nginx limits them, and Twisted's own limit is 16 kB
SETTLE_SECONDS = 0.5  # for what was accepted, but not read yet
# For a client's answer to the close frame. Autobahn's own 1 is less than a phone takes, or a busy machine;
# a client that sends while its connection is cut may see the reset before it has read the frame.
CLOSE_SECONDS = 5
BACKLOG = 4096  # connections that wait for accept(), cut to net.core.somaxconn; Twisted's own are 50
FIRST_SOCKET = 3  # sd_listen_fds(3)
TICK_SECONDS = 0.05


HTTPChannel.totalHeadersSize = HTTPChannel.MAX_LENGTH = HEADERS


def handle_exception(request, exception, answer=WebRequest.handle_exception):
    """End a response that has begun when its stream raises an exception, as other servers do.

    Daphne itself tries to answer 500. That raises an exception in application_checker(), which never runs
    again, and the client waits.
    """
    if request._response_started:
        request.loseConnection()
    else:
        answer(request, exception)


WebRequest.handle_exception = handle_exception


class DrainingServer(Server):
    def __init__(self, application, *args, spread_seconds=2.0, graceful_seconds=25.0, **kwargs):
        super().__init__(consumers(application), *args, **kwargs)
        self.spread_seconds = spread_seconds
        self.graceful_seconds = graceful_seconds
        self.ports = []
        self.draining = None

    def run(self):
        # Twisted installs its own handlers when the reactor starts; in its shutdown trigger, closing hangs.
        reactor.callWhenRunning(self.install_signal_handlers)
        reactor.callWhenRunning(self.close_with_a_code)
        super().run()

    def close_with_a_code(self):
        """Let Autobahn close with a code, such as 1009 for a large message, and not drop the client."""
        self.ws_factory.setProtocolOptions(failByDrop=False)

    def install_signal_handlers(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: reactor.callFromThread(self.start_draining))

    def listen_success(self, port):
        self.ports.append(port)
        port.socket.listen(BACKLOG)
        super().listen_success(port)

    def start_draining(self):
        if self.draining:  # a second signal stops at once
            self.stop()
        else:
            self.draining = asyncio.ensure_future(self.drain())
            self.draining.add_done_callback(lambda _: self.stop())  # also after an error

    async def drain(self):
        now = asyncio.get_running_loop().time
        for port in self.ports:
            port.stopListening()
        sockets = len(self.open_websockets())
        logger.info("Draining: closing %d WebSockets", sockets)
        share = max(1, math.ceil(sockets * TICK_SECONDS / max(self.spread_seconds, TICK_SECONDS)))
        started = now()
        while now() < started + self.graceful_seconds:
            # Looked up again each time: a handshake under way becomes an open socket later.
            for protocol in self.open_websockets()[:share]:
                protocol.closeHandshakeTimeout = CLOSE_SECONDS
                # sendClose() takes no code below 3000 other than 1000.
                protocol.sendCloseFrame(SERVICE_RESTART, b"service restart")
            if now() > started + SETTLE_SECONDS and not self.busy():
                break
            await asyncio.sleep(TICK_SECONDS)
        else:
            logger.warning("Not everything ended within %g s: cutting the rest", self.graceful_seconds)
        # Daphne's own shutdown expects an application in every entry, also in those that it has reaped.
        self.connections = {p: d for p, d in self.connections.items() if "application_instance" in d}

    def open_websockets(self):
        return [
            protocol
            for protocol in self.connections
            if isinstance(protocol, WebSocketProtocol) and protocol.state == protocol.STATE_OPEN
        ]

    def busy(self):
        """Whether a connection, its application or the sending of its last bytes is still under way."""
        return bool(reactor.getWriters()) or any(
            "disconnected" not in details
            or ("application_instance" in details and not details["application_instance"].done())
            for details in self.connections.values()
        )


class SystemdSocket:
    """Twisted's own endpoint for it opens it to all, and at the end removes its path, never to come back."""

    def __init__(self, *_):
        self.socket = socket.socket(fileno=FIRST_SOCKET)
        self.socket.setblocking(False)

    def listen(self, factory):
        self.factory = factory
        daphne.server.twisted_loop.add_reader(self.socket, self.accept)
        return defer.succeed(self)

    def accept(self):
        with contextlib.suppress(BlockingIOError):  # there are no more
            for _ in range(100):  # requests that run get their turn between
                connection, _ = self.socket.accept()
                with connection:
                    connection.setblocking(False)
                    reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, self.factory)

    def stopListening(self):  # noqa: N802 - Twisted's name
        """What waits is for the next process."""
        daphne.server.twisted_loop.remove_reader(self.socket)


def instance_socket(instance, runtime_directory):
    """blue-1 -> <runtime directory>/blue/websocket-1.sock"""
    match = re.fullmatch(r"([a-z]+)-([1-9][0-9]{0,2})", instance)
    if not match:
        sys.exit(f"--instance {instance!r} is not <slot>-<number>, such as blue-1")
    slot, number = match.groups()
    return Path(runtime_directory, slot, f"websocket-{number}.sock")


def remove_stale_socket(path):
    """Make room for our socket after a predecessor that was killed, but never take a living one's place."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        sys.exit(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            sys.exit(f"{path} is answered by another process")


class DrainingCommandLine(CommandLineInterface):
    description = __doc__.split("\n", 1)[0]

    def __init__(self):
        super().__init__()
        self.parser.prog = "python -m pergola_runtime.daphne"
        # nginx has the access log; Daphne writes its own from verbosity 1 on.
        self.parser.set_defaults(verbosity=0)
        add = self.parser.add_argument_group("draining").add_argument
        add("--instance", metavar="SLOT-N", help="listen on <runtime directory>/SLOT/websocket-N.sock")
        add("--systemd", action="store_true", help="take the socket that systemd opened")
        add("--runtime-directory", default="/run/app", help="where the slots' directories are (%(default)s)")
        add("--spread", type=float, default=2, help="seconds over which WebSockets are closed (%(default)s)")
        add("--graceful-timeout", type=float, default=25, help="seconds until the rest is cut (%(default)s)")

    def run(self, args):
        options = self.parser.parse_args(args)
        if sum(map(bool, (options.instance, options.unix_socket, options.systemd))) != 1:
            sys.exit("one of --instance, --unix-socket and --systemd is needed")
        if options.systemd:
            daphne.server.serverFromString = SystemdSocket
            args = [*args, "--endpoint", "systemd"]
        else:
            path = Path(options.unix_socket or instance_socket(options.instance, options.runtime_directory))
            args = [*args, "--unix-socket", str(path)] if options.instance else args
            remove_stale_socket(path)
        self.server_class = functools.partial(
            DrainingServer, spread_seconds=options.spread, graceful_seconds=options.graceful_timeout
        )
        super().run([*args, "--proxy-headers"])


if __name__ == "__main__":
    DrainingCommandLine.entrypoint()
