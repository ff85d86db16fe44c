"""Two processes of Daphne, one Redis, one database; one process is killed in the middle of the talk."""

import asyncio
import contextlib
import json
import signal
from uuid import uuid4

import pytest
from app.servers import ROOT, manage, parts, serving
from waiting import wait_until
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed

SLUG = "%EB%B9%84%EB%8F%99%EA%B8%B0"  # 비동기
PREPARE = """
import json
from chat.models import Room
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", database="direct", verbosity=0)
Room.objects.create(name="비동기", slug="비동기")
cookies = {}
for name in ("mina", "jonas"):
    client = Client()
    client.force_login(User.objects.create_user(name))
    cookies[name] = client.cookies["sessionid"].value
print(json.dumps(cookies))
"""


@pytest.fixture
def environment(tmp_path, redis):
    return parts(tmp_path / "db.sqlite3", redis)


@pytest.fixture
def cookies(environment):
    done = manage(environment, "shell", "--no-imports", "-v", "0", "-c", PREPARE)
    return json.loads(done.stdout)


@pytest.fixture
def servers(tmp_path, environment):
    """As Pergola's units start them, under the names one-1 and two-1."""
    with contextlib.ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            options = ["--instance", f"{name}-1", "--runtime-directory", str(tmp_path), "--spread", "0"]
            arguments = ["pergola_runtime.daphne", *options, "config.asgi:application"]
            path = tmp_path / name / "websocket-1.sock"
            started.append(stack.enter_context(serving(arguments, path, cwd=ROOT / "app", env=environment)))
        yield started


class Talker:
    """What the page's script does: says what was not confirmed again, and where it was when it comes back."""

    def __init__(self, name, cookie):
        self.name, self.cookie = name, cookie
        self.heard, self.unsent, self.processes = [], {}, []

    @contextlib.asynccontextmanager
    async def at(self, server):
        last = self.heard[-1]["id"] if self.heard else 0
        address = f"ws://localhost/ws/chat/{SLUG}/?since={last}"
        headers = {"Cookie": f"sessionid={self.cookie}"}
        async with unix_connect(
            str(server.path), address, origin="http://localhost", additional_headers=headers
        ) as self.socket:
            for key, text in list(self.unsent.items()):
                await self.send(key, text)
            listening = asyncio.create_task(self.listen())
            yield
            listening.cancel()

    async def listen(self):
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                if frame["type"] == "welcome":
                    self.processes.append((frame["process"], frame["instance"]))
                elif frame["type"] == "messages":
                    self.heard += frame["messages"]
                elif frame["type"] == "stored":
                    del self.unsent[frame["key"]]

    async def send(self, key, text):
        await self.socket.send(json.dumps({"type": "message", "key": key, "text": text}))

    async def say(self, text):
        self.unsent[key := str(uuid4())] = text
        with contextlib.suppress(ConnectionClosed):
            await self.send(key, text)

    def texts(self):
        return [message["text"] for message in self.heard]


async def until(condition, what):
    await asyncio.to_thread(wait_until, condition, what)


async def talk(servers, mina, jonas):
    for server in servers:
        await asyncio.to_thread(lambda server=server: server.connect().close())
    one, two = servers
    said = {f"미나 {number}" for number in range(14)} | {f"jonas {number}" for number in range(12)}
    async with jonas.at(two):
        async with mina.at(one):
            await until(lambda: mina.processes and jonas.processes, "both are in")
            for number in range(6):
                await mina.say(f"미나 {number}")
                await jonas.say(f"jonas {number}")
            await until(lambda: len(set(jonas.texts()) & {"미나 0", "미나 1"}) == 2, "some of hers to arrive")
            for number in range(6, 12):
                await mina.say(f"미나 {number}")
            one.signal(signal.SIGKILL)  # some of these are stored and not confirmed, or not even read
            one.exit_code()
            for number in range(6, 12):
                await jonas.say(f"jonas {number}")
        await mina.say("미나 12")
        async with mina.at(two):
            await mina.say("미나 13")
            await until(lambda: not mina.unsent and not jonas.unsent, "everything to be confirmed")
            await until(lambda: said <= set(mina.texts()) & set(jonas.texts()), "everything to arrive")
            two.signal(signal.SIGTERM)  # as a deploy does it
            await until(lambda: mina.socket.close_code and jonas.socket.close_code, "the end to be told")
    return said


def test_a_process_is_killed_and_nothing_is_missing_and_nothing_there_twice(servers, cookies):
    mina, jonas = (Talker(name, cookies[name]) for name in ("mina", "jonas"))
    said = asyncio.run(talk(servers, mina, jonas))
    assert mina.heard == jonas.heard
    assert [message["id"] for message in mina.heard] == list(range(1, len(said) + 1))
    assert set(mina.texts()) == said
    processes = [(server.process.pid, name) for server, name in zip(servers, ("one-1", "two-1"), strict=True)]
    assert mina.processes == processes
    assert jonas.processes == processes[1:]
    assert mina.socket.close_code == jonas.socket.close_code == 1012
    for server in servers:
        assert "Traceback" not in server.log()
