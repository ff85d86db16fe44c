"""Granian on systemd's socket: `python -m pergola_runtime.granian --interface asgi config.asgi:application`

Granian itself binds a path of its own alone: while it restarts, requests are refused. All of its options work
but for --host, --port and --uds.
"""

import socket

from granian import cli
from granian.net import SocketHolder
from granian.server import Server

FIRST_SOCKET = 3  # sd_listen_fds(3)


class ActivatedServer(Server):
    """By its private parts, as Granian has no public way in; tests/config/test_http_servers.py tries them."""

    def _init_shared_socket(self):
        self._ssp = None
        self._shd = SocketHolder(FIRST_SOCKET, True, self.backlog)
        self._sfd = self._shd.get_fd()
        self._sso = socket.socket(fileno=self._sfd)
        self._sso.set_inheritable(True)

    @property
    def _bind_addr_fmt(self):
        return f"file descriptor {FIRST_SOCKET}"


if __name__ == "__main__":
    cli.Server = ActivatedServer
    cli.entrypoint()
