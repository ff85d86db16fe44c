"""Granian on systemd's socket: `python -m pergola_runtime.granian --interface asgi config.asgi:application`

Granian itself binds a path of its own alone: while it restarts, requests are refused. And a worker that is
told to stop while it starts does not hear it, serves on, and is killed with what it serves. All of Granian's
options work but for --host, --port and --uds.

By its private parts, as Granian has no public way in; tests/config/test_http_servers.py tries them.
"""

import signal
import socket

from granian import cli
from granian.net import SocketHolder
from granian.server import Server, mp

FIRST_SOCKET = 3  # sd_listen_fds(3)
STOPS = (signal.SIGTERM, signal.SIGINT)
new_scheduler = mp._new_cbscheduler


class ActivatedServer(Server):
    def _init_shared_socket(self):
        self._ssp = None
        self._shd = SocketHolder(FIRST_SOCKET, True, self.backlog)
        self._sfd = self._shd.get_fd()
        self._sso = socket.socket(fileno=self._sfd)
        self._sso.set_inheritable(True)

    @property
    def _bind_addr_fmt(self):
        return f"file descriptor {FIRST_SOCKET}"


class SignalSafeWorker(mp.WorkerProcess):
    """Forked with signals held back, as until then it has the handlers of its parent."""

    def start(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def scheduler_that_listens(loop, *args, **options):
    """In the worker, right before it serves: what was held back comes as soon as the loop runs."""
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOPS)
    return new_scheduler(loop, *args, **options)


if __name__ == "__main__":
    cli.Server = ActivatedServer
    mp.WorkerProcess = SignalSafeWorker
    mp._new_cbscheduler = scheduler_that_listens
    cli.entrypoint()
