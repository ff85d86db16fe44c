"""Applications that the servers in these tests serve; what happened inside is left in files in $SCRATCH."""

import asyncio
import os
import time
from pathlib import Path

SCRATCH = Path(os.environ.get("SCRATCH", "."))


kept = []


async def until_the_loop_ends():
    try:
        yield
    finally:
        await asyncio.sleep(0.01)  # as a pooled client does, whose connections are closed one by one
        (SCRATCH / "closed").write_text("after the request" if (SCRATCH / "go").exists() else "before it")


async def everything(scope, receive, send):
    """Shows what its server can: it greets a WebSocket; /version and /server show HTTP and lifespan."""
    if scope["type"] == "lifespan":
        await receive()
        kept.append("lifespan")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()
    elif scope["path"] in ("/version", "/server"):
        told = {"/version": f"{scope['http_version']} {' '.join(kept)}", "/server": str(scope.get("server"))}
        body = told[scope["path"]].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    else:
        await http(scope, receive, send)


async def http(scope, receive, send):
    """/held answers once $SCRATCH/go exists, /endless never, /large with 4 MB, all else with the client.

    /headed sends its head at once, and its body with $SCRATCH/go; /parts two, and then holds the event loop;
    /fails one, and raises an exception.

    /kept makes something that is to be closed with the event loop.
    """
    if scope["path"] == "/kept":
        kept.append(until_the_loop_ends())
        await anext(kept[-1])
    if scope["path"] in ("/held", "/endless"):
        (SCRATCH / "held").touch()
        while scope["path"] == "/endless" or not (SCRATCH / "go").exists():  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)
    if scope["path"] == "/fails":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        raise ValueError("raised by a stream")
    if scope["path"] == "/parts":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        while not (SCRATCH / "go").exists():
            time.sleep(0.02)  # noqa: ASYNC251 - it holds the event loop
        await send({"type": "http.response.body", "body": b"end"})
        return
    body = b"x" * 4_000_000 if scope["path"] == "/large" else f"{scope['scheme']} {scope['client']}".encode()
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if scope["path"] == "/large":
        (SCRATCH / "held").touch()
    while scope["path"] == "/headed" and not (SCRATCH / "go").exists():  # noqa: ASYNC110 - another process's
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": body})


def echo():
    """Channels needs settings, the other applications here do not."""
    from django.conf import settings

    settings.configure()
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data=text_data, bytes_data=bytes_data)

        async def disconnect(self, code):
            with (SCRATCH / "disconnected").open("a") as file:
                file.write(f"{code}\n")

    return ProtocolTypeRouter({"http": http, "websocket": Echo.as_asgi()})


def late():
    """As a large project, it takes its time to be imported: until $SCRATCH/imported exists."""
    (SCRATCH / f"imports-{os.getpid()}").touch()
    while not (SCRATCH / "imported").exists():
        time.sleep(0.02)
    return everything


def __getattr__(name):
    made = {"channels_application": echo, "everything_late": late}
    if name in made:
        return made[name]()
    raise AttributeError(name)
