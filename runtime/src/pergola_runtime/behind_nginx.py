"""A request's scope as its client made it, for servers on a unix socket that nginx alone reaches.

The client's address, the scheme, the server's name and port and the request's id come from the headers that
nginx sets (infra/nginx/snippets/proxy.conf). Some servers read some of them, each in its own way; here they
are the same with every server.
"""

import asyncio
import weakref

from pergola_runtime import logs
from pergola_runtime.executor import ClosingExecutor

PORTS = {"https": 443, "wss": 443}


def behind_nginx(application):
    """The application, with a scope that describes the client's request rather than nginx's."""

    loops = weakref.WeakSet()

    async def serve(scope, receive, send):
        if (loop := asyncio.get_running_loop()) not in loops:
            loops.add(loop)
            loop.set_default_executor(ClosingExecutor())
        if scope["type"] in ("http", "websocket"):
            describe(scope)
        await application(scope, receive, unbuffered(send) if scope["type"] == "http" else send)

    return serve


def unbuffered(send):
    """`send`, which asks nginx to pass server-sent events on one by one.

    nginx fills a buffer of 40 kB first otherwise.
    """

    def marked(message):
        if message["type"] == "http.response.start" and "headers" in message:
            headers = list(message["headers"])  # ASGI allows any iterable
            for name, value in headers:
                if name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream"):
                    headers.append((b"x-accel-buffering", b"no"))
                    break
            message = message | {"headers": headers}
        return send(message)

    return marked


def describe(scope):
    """Set a scope's `client`, `scheme` and `server`, and the id for the log, from nginx's headers."""
    host = address = scheme = ""
    request_id = "-"
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"x-forwarded-for":
            address = value.decode("latin-1")
        elif name == b"x-forwarded-proto":
            scheme = value.decode("latin-1")
        elif name == b"x-request-id":
            request_id = value.decode("latin-1")
    logs.request_id.set(request_id)
    if address:
        scope["client"] = (address, 0)
    if scheme in ("http", "https"):
        scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
    # A unix socket has no port: what a server gives in its place (None, 0, a letter of its path) would be in
    # every absolute URL.
    _, port = scope.get("server") or (None, None)
    if not (isinstance(port, int) and port):
        scope["server"] = name_and_port(host, scope.get("scheme"))


def name_and_port(host, scheme):
    name, colon, port = host.rpartition(":")
    if not colon or (port and not port.isdecimal()):  # no port; the colon is an IPv6 address's
        name, port = host, ""
    return name or "localhost", int(port or PORTS.get(scheme, 80))
