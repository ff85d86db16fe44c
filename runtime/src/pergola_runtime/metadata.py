"""What a request says of its server, where the server listens on a unix socket: name and port are the Host's.

Over TCP a server reports its own address. A socket has none, and Django makes SERVER_PORT of it: the text
"None", with which every absolute URL of some applications fails.
"""

PORTS = {"https": 443, "wss": 443}


def named(application):
    """The application; its scope's `server` is (name, port) wherever the server has no port."""

    async def serve(scope, receive, send):
        if scope["type"] != "lifespan" and (scope.get("server") or (None, None))[1] is None:
            scope["server"] = name_and_port(scope)
        await application(scope, receive, send)

    return serve


def name_and_port(scope):
    host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():  # none, or what stands in an IPv6 address
        name, port = host, ""
    return name or "localhost", int(port or PORTS.get(scope.get("scheme"), 80))
