"""Calls an ASGI application as a server does, one task for each request."""

import asyncio
import re
from dataclasses import dataclass, field

from waiting import until


@dataclass
class Answer:
    status: int = 0
    headers: list = field(default_factory=list)
    body: bytes = b""
    error: str = ""

    def header(self, name):
        return [value for key, value in self.headers if key.lower() == name]


class Client:
    """With a jar for cookies."""

    def __init__(self, application):
        self.application = application
        self.jar = {}

    async def request(self, method, target, body=b"", headers=(), leaves_after=None, leaves_when=None):
        """`leaves_after`: seconds until the client goes; `leaves_when`: it goes when this is true."""
        path, _, query = target.partition("?")
        given = [(b"host", b"testserver"), *headers]
        if self.jar:
            given.append((b"cookie", "; ".join(f"{k}={v}" for k, v in self.jar.items()).encode()))
        if body:
            given.append((b"content-length", str(len(body)).encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": given,
            "client": ("127.0.0.1", 4321),
            "server": ("testserver", 80),
        }
        answer = Answer()
        ended = asyncio.Event()
        parts = [body[n : n + 60000] for n in range(0, len(body), 60000)] or [b""]

        async def receive():
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            if leaves_when is not None:
                await until(leaves_when, "what the client waits for")
                return {"type": "http.disconnect"}
            await asyncio.wait_for(ended.wait(), leaves_after)
            return {"type": "http.disconnect"}

        async def leaving():
            try:
                return await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [(key.decode(), value.decode()) for key, value in message["headers"]]
            else:
                answer.body += message.get("body", b"")
                if not message.get("more_body"):
                    ended.set()

        try:
            await asyncio.create_task(self.application(scope, leaving, send))
        except Exception as error:
            answer.error = repr(error)
        for cookie in answer.header("set-cookie"):
            name, value = re.match(r"([^=]+)=([^;]*)", cookie).groups()
            self.jar[name] = value
            if "Max-Age=0" in cookie:
                del self.jar[name]
        return answer
