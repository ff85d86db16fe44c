"""Clients that count what is lost: `python tests/load/clients.py --url https://app.example.org --ca ca.crt`

HTTP clients of all kinds (GET and POST, each connection kept or not, HTTP/1.1 and 2, some requests of five
seconds), chatters over WebSockets, and visitors who order jobs, each from one of the given addresses. A
client goes on after a failure, and repeats nothing that a browser's page would not: a request that fails is
counted, with the time and the reason; a message or a job is sent again by its own key.

They begin, print `at work`, go on until SIGTERM, SIGINT or `--seconds`, wait for what is under way, look
whether all that was accepted is there once, print one line a kind, and exit with 1 if it is not.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import ssl
import sys
import time
import uuid
from pathlib import Path

import httpx
import websockets
from tally import Tally, reason_of

PATIENCE = 30  # seconds for one answer
SLOW = 5  # seconds that a slow request asks for
SHOWN = 3  # pieces of evidence a reason; --report has more
RESTART = 1012  # a server that restarts says so
JOB = re.compile(r"/jobs/([0-9a-f-]{36})(?=[\"'])")
SITE = {
    "get": ["/", "/posts/", "/lab/async/", "/api/ninja/async-hello"],
    "slow": f"/lab/async/sleep/?seconds={SLOW}",
    "post": "/api/ninja/posts",
    "tokens": "/api/ninja/tokens",
    "login": "/login/",
    "rooms": "/chat/",
    "chat": "/ws/chat/{room}/",
    "jobs": "/jobs/",
    "order": "/jobs/start",
}


class SetupError(Exception):
    pass


class Load:
    def __init__(self, options):
        self.options = options
        self.url = options.url.rstrip("/")
        self.run = uuid.uuid4().hex[:8]  # is in every text, so that a count finds this run's alone
        self.stopping = asyncio.Event()
        self.http, self.posts = Tally("requests"), Tally("posts")
        self.sockets, self.messages = Tally("WebSockets"), Tally("messages")
        self.jobs = Tally("jobs")
        # (!) httpx writes the protocols that it offers into the context: with one for all of them a server
        # would speak HTTP/2 with those who cannot
        self.contexts = {}
        if self.url.startswith("https"):
            for what in (1, 2, "WebSocket"):
                self.contexts[what] = ssl.create_default_context(cafile=options.ca)
        self.token = None
        self.rooms = {}  # slug: Room

    def address(self, number):
        return (
            self.options.addresses[number % len(self.options.addresses)] if self.options.addresses else None
        )

    def client(self, number, *, version=1, keep=True):
        """Its own pool of connections: no two clients share one."""
        transport = httpx.AsyncHTTPTransport(
            verify=self.contexts.get(version, False),
            http1=version == 1,
            http2=version == 2,
            local_address=self.address(number),
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=1 if keep else 0),
        )
        return httpx.AsyncClient(
            transport=transport, base_url=self.url, timeout=PATIENCE, headers={"User-Agent": "pergola-load"}
        )

    async def pause(self, seconds):
        """About that long, so that the clients do not march in step; less when it is time to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.5, 1.5) * seconds):
                await self.stopping.wait()

    async def ask(self, client, method, path, *, expected, what, **arguments):
        """The answer, or None where the request failed."""
        self.http.add("sent")
        began = time.monotonic()
        try:
            answer = await client.request(method, path, **arguments)
        except (httpx.HTTPError, OSError) as error:
            seconds = round(time.monotonic() - began, 3)
            self.http.bad(
                "lost",
                reason_of(error),
                said=str(error)[:200],
                request=f"{method} {path}",
                client=what,
                seconds=seconds,
            )
            return None
        seconds = time.monotonic() - began
        if answer.status_code not in expected:
            self.http.bad(
                "lost",
                f"status {answer.status_code}",
                request=f"{method} {path}",
                client=what,
                seconds=round(seconds, 3),
                body=answer.text[:200],
            )
            return None
        self.http.add("answered")
        self.http.took("slow requests" if path == SITE["slow"] else "requests", seconds)
        return answer

    # --- HTTP

    async def http_client(self, number):
        versions = (1, 2) if self.contexts and not self.options.http_1 else (1,)
        kinds = list(itertools.product(versions, (True, False), ("GET", "POST")))
        version, keep, method = kinds[number % len(kinds)]
        slow = number % 10 == 9
        what = f"{number} HTTP/{version} {'kept' if keep else 'single'}{' slow' if slow else ''}"
        headers = {} if keep or version == 2 else {"Connection": "close"}  # which HTTP/2 does not know
        async with self.client(number, version=version, keep=keep) as client:
            await self.pause(self.options.ramp / 2)
            while not self.stopping.is_set():
                if slow:
                    await self.ask(client, "GET", SITE["slow"], expected=[200], what=what, headers=headers)
                elif method == "GET":
                    path = random.choice(SITE["get"])
                    await self.ask(client, "GET", path, expected=[200], what=what, headers=headers)
                else:
                    await self.post(client, what, headers)
                await self.pause(self.options.pause)

    async def post(self, client, what, headers):
        body = {"title": f"load {self.run}", "body": f"by {what}"}
        headers = headers | {"Authorization": f"Bearer {self.token}"}
        answer = await self.ask(
            client, "POST", SITE["post"], expected=[201], what=what, headers=headers, json=body
        )
        # one without an answer may be there or not
        self.posts.add("accepted" if answer else "unknown")

    async def count_posts(self):
        accepted, unknown = self.posts["accepted"], self.posts["unknown"]
        query = {"search": f"load {self.run}", "page_size": 1}
        try:
            async with self.client(0) as client:
                there = (await client.get(SITE["post"], params=query)).json()["count"]
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            self.posts.bad("missing", f"cannot be counted: {reason_of(error)}")
            return
        if there < accepted:
            self.posts.bad("missing", f"{there} are there")
            self.posts.add("missing", accepted - there - 1)
        elif there > accepted + unknown:
            self.posts.bad("doubled", f"{there} are there")
            self.posts.add("doubled", there - accepted - unknown - 1)

    # --- beginning

    async def begin(self):
        """Logs in, and makes the rooms: before anything is counted."""
        options = self.options
        self.cookies = []
        users = options.users if options.websockets or options.http else []
        for number, user in enumerate(users):
            username, password = user.split(":", 1)
            async with self.client(number) as client:
                if options.websockets:
                    await self.form(client, SITE["login"], {"username": username, "password": password})
                    if not (session := client.cookies.get("sessionid")):
                        raise SetupError(f"{username} cannot log in")
                    self.cookies.append(session)
                    for room in range(options.rooms if number == 0 else 0):
                        answer = await self.form(client, SITE["rooms"], {"name": f"load {self.run} {room}"})
                        slug = answer.headers.get("location", "").rstrip("/").rpartition("/")[2]
                        if not slug:
                            raise SetupError(f"no room: {answer.status_code} {answer.text[:200]}")
                        self.rooms[slug] = Room(slug)
                if options.http and self.token is None:
                    answer = await client.post(
                        SITE["tokens"], json={"username": username, "password": password}
                    )
                    if answer.status_code != 201:
                        raise SetupError(f"no token: {answer.status_code} {answer.text[:200]}")
                    self.token = answer.json()["token"]

    async def form(self, client, path, data):
        """As a browser fills it in."""
        page = await client.get(path)
        return await client.post(
            path, data=data | {"csrfmiddlewaretoken": hidden(page)}, headers=self.referer(path)
        )

    def referer(self, path):
        return {"Referer": self.url + path, "Origin": self.url}

    # --- jobs

    async def visitor(self, number):
        what = f"visitor {number}"
        kind = self.options.job_kinds[min(number, len(self.options.job_kinds) - 1)]
        known = {}  # the id of a job: its text
        async with self.client(number) as client:
            for count in itertools.count():
                if self.stopping.is_set():
                    break
                text, key = f"load-{self.run}-{number}-{count}", str(uuid.uuid4())
                self.jobs.add("sent")
                if await self.order(client, what, kind, text, key):
                    self.jobs.add("accepted")
                    await self.follow(client, what, text, known)
                await self.pause(self.options.job_pause)

    async def order(self, client, what, kind, text, key):
        """Until it is taken; by its key it is one job, however often it is sent."""
        deadline = time.monotonic() + self.options.settle
        while time.monotonic() < deadline:
            page = await self.ask(client, "GET", SITE["jobs"], expected=[200], what=what)
            if page:
                data = {"kind": kind, "text": text, "key": key}
                data["csrfmiddlewaretoken"] = hidden(page)
                answer = await self.ask(
                    client,
                    "POST",
                    SITE["order"],
                    expected=[302],
                    what=what,
                    data=data,
                    headers=self.referer(SITE["jobs"]),
                )
                if answer:
                    return True
            await asyncio.sleep(random.uniform(0.2, 1))
        self.jobs.bad("lost", "never taken", text=text)
        return False

    async def follow(self, client, what, text, known):
        """Until the job is finished. Other jobs than those that were ordered are its doubles."""
        began = time.monotonic()
        while time.monotonic() - began < self.options.settle:
            page = await self.ask(client, "GET", SITE["jobs"], expected=[200], what=what)
            for job in dict.fromkeys(re.findall(JOB, page.text) if page else []):
                if job in known:
                    continue
                answer = await self.ask(client, "GET", f"{SITE['jobs']}{job}", expected=[200], what=what)
                if answer is None or not (state := answer.json())["finished"]:
                    continue
                if state["text"] in known.values():
                    self.jobs.bad("doubled", "ordered once, and there twice", state=state)
                known[job] = state["text"]
                self.settle(state)
            if text in known.values():
                self.jobs.took("jobs", time.monotonic() - began)
                return
            await asyncio.sleep(random.uniform(0.5, 1))
        self.jobs.bad("lost", f"not done within {self.options.settle:g} s", text=text)

    def settle(self, state):
        if state["status"] != "done" or state["effects"] == 0:
            self.jobs.bad("lost", f"{state['status']}, {state['effects']} effects", state=state)
        else:
            self.jobs.add("done")
            if state["effects"] > 1:
                self.jobs.bad("doubled", f"{state['effects']} effects", state=state)

    # --- the run

    async def __call__(self):
        options = self.options
        await self.begin()
        chatters = [Chatter(self, number) for number in range(options.websockets)]
        tasks = [asyncio.create_task(self.http_client(number)) for number in range(options.http)]
        tasks += [asyncio.create_task(chatter.run()) for chatter in chatters]
        tasks += [asyncio.create_task(self.visitor(number)) for number in range(options.visitors)]
        for task in tasks:
            task.add_done_callback(self.watch)
        # a visitor is known by a cookie that the answer to the first order sets: that one may not be lost
        ready = await self.until(
            lambda: (
                self.stopping.is_set()
                or (
                    all(chatter.last is not None for chatter in chatters)
                    and self.jobs["accepted"] >= options.visitors
                )
            ),
            options.ramp + PATIENCE,
        )
        if not ready:
            self.stopping.set()
            self.http.bad("lost", "not all clients came in")
        print("at work", flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.seconds):
                await self.stopping.wait()
        self.stopping.set()
        _, hung = await asyncio.wait(tasks, timeout=2 * options.settle + PATIENCE)
        for task in hung:
            self.http.bad("lost", "a client hung")
            task.cancel()
        broken = [result for result in await asyncio.gather(*tasks, return_exceptions=True) if result]
        for chatter in chatters:
            chatter.account()
        for room in self.rooms.values():
            room.account(self.messages)
        if options.http:
            await self.count_posts()
        for error in broken:  # of ours: a count that missed something is worth nothing
            self.http.bad("lost", f"a client broke: {error!r}")

    def watch(self, task):
        """A client that broke is no reason to go on."""
        if not task.cancelled() and task.exception():
            self.stopping.set()

    async def until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  of many tasks' making
            await asyncio.sleep(0.1)
        return condition()

    def tallies(self):
        return [
            (self.http, ("sent", "answered", "lost")),
            (self.posts, ("accepted", "missing", "doubled")),
            (self.sockets, ("opened", "restarted", "lost")),
            (self.messages, ("sent", "stored", "received", "missing", "doubled")),
            (self.jobs, ("sent", "done", "lost", "doubled")),
        ]

    def lost(self):
        return sum(tally[name] for tally, _ in self.tallies() for name in ("lost", "missing", "doubled"))


def hidden(page):
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    if not found:
        raise SetupError(f"{page.url} has no form: {page.status_code} {page.text[:200]}")
    return found[1]


class Room:
    def __init__(self, slug):
        self.slug = slug
        self.chatters = []
        self.last = 0  # the highest number that was said to be stored
        self.keys = {}  # key: the numbers that were told for it

    def saw(self, key, number):
        self.keys.setdefault(key, set()).add(number)
        self.last = max(self.last, number)

    def account(self, tally):
        for key, numbers in self.keys.items():
            if len(numbers) > 1:
                tally.bad(
                    "doubled", "stored under two numbers", room=self.slug, key=key, numbers=sorted(numbers)
                )


class Chatter:
    """A page with a room in it: it comes back with the last number that it saw, and sends again, by its key,
    what it got no answer for."""

    def __init__(self, load, number):
        self.load, self.number = load, number
        self.room = list(load.rooms.values())[number % len(load.rooms)]
        self.cookie = load.cookies[number // len(load.rooms) % len(load.cookies)]
        self.first = self.last = None  # numbers of messages
        self.deadline, self.failures = None, 0
        self.seen, self.unanswered, self.count = set(), {}, 0
        self.room.chatters.append(self)

    def done(self):
        """When nobody of the room waits for an answer any more, and all that is stored in it is here; or when
        it has waited long enough for that."""
        if not self.load.stopping.is_set():
            return False
        self.deadline = self.deadline or time.monotonic() + self.load.options.settle
        waiting = any(one.unanswered for one in self.room.chatters) or (self.last or 0) < self.room.last
        return not waiting or time.monotonic() > self.deadline

    async def run(self):
        await asyncio.sleep(random.uniform(0, self.load.options.ramp))
        while not self.done():
            try:
                await self.visit()
            except websockets.ConnectionClosed as closed:
                self.closed(closed.rcvd.code if closed.rcvd else 1006, closed)
            except (OSError, TimeoutError, websockets.WebSocketException) as error:
                self.load.sockets.bad("lost", reason_of(error), said=str(error)[:200], client=self.number)
            if not self.done():
                await asyncio.sleep(random.uniform(0.1, 1) * min(2**self.failures, 10))
                self.failures += 1

    def closed(self, code, closed):
        if code == RESTART:
            self.load.sockets.add("restarted")
        else:
            self.load.sockets.bad("lost", f"closed with {code}", said=str(closed)[:200], client=self.number)

    async def visit(self):
        load = self.load
        address = load.address(self.number)
        base = load.options.websocket_url or load.url.replace("http", "ws", 1)
        since = "" if self.last is None else f"?since={self.last}"
        url = base + SITE["chat"].format(room=self.room.slug) + since
        async with websockets.connect(
            url,
            ssl=load.contexts.get("WebSocket") if url.startswith("wss") else None,
            local_addr=(address, 0) if address else None,
            origin=load.url,
            additional_headers={"Cookie": f"sessionid={self.cookie}"},
            compression=None,
            ping_interval=None,
            open_timeout=PATIENCE,
            close_timeout=5,
            proxy=None,
        ) as socket:
            load.sockets.add("opened")
            self.failures = 0
            talking = asyncio.create_task(self.talk(socket))
            try:
                while not self.done():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            self.hear(json.loads(await socket.recv()))
                    if talking.done():
                        talking.result()  # raises what ended it
            finally:
                talking.cancel()
                with contextlib.suppress(asyncio.CancelledError, websockets.ConnectionClosed):
                    await talking

    async def talk(self, socket):
        for key, text in list(self.unanswered.items()):
            self.load.messages.add("sent again")
            await self.send(socket, key, text)
        while not self.load.stopping.is_set():
            await self.load.pause(self.load.options.message_pause)
            # not before all of the room are in it: who comes later has no claim to what was said
            if self.load.stopping.is_set() or any(one.last is None for one in self.room.chatters):
                continue
            key, self.count = str(uuid.uuid4()), self.count + 1
            self.unanswered[key] = f"load {self.load.run} {self.number} {self.count}"
            self.load.messages.add("sent")
            await self.send(socket, key, self.unanswered[key])

    async def send(self, socket, key, text):
        await socket.send(json.dumps({"type": "message", "key": key, "text": text}))

    def hear(self, frame):
        tally = self.load.messages
        if frame["type"] == "welcome":
            if self.last is None:
                self.last = frame["last"]  # what was before is not ours to count
                self.first = frame["last"] + 1
            elif frame.get("skipped") or frame.get("reset"):
                tally.bad("missing", "a replay left some out", client=self.number, frame=frame)
        elif frame["type"] == "messages":
            for message in frame["messages"]:
                number = message["id"]
                if number < self.first:
                    continue
                if number in self.seen:
                    tally.bad("doubled", "came twice", client=self.number, message=message)
                else:
                    tally.add("received")
                self.seen.add(number)
                self.last = max(self.last, number)
                self.room.saw(message["key"], number)
        elif frame["type"] == "stored" and frame["key"] in self.unanswered:
            del self.unanswered[frame["key"]]
            tally.add("stored")
            self.room.saw(frame["key"], frame["id"])
        elif frame["type"] == "error":
            tally.reasons[f"error: {frame.get('error')}"] += 1

    def account(self):
        """What must be here at the end: all that is in the room since we came."""
        tally = self.load.messages
        if self.first is None:
            tally.bad("missing", "never welcomed", client=self.number)
            return
        for number in sorted(set(range(self.first, self.room.last + 1)) - self.seen):
            tally.bad("missing", "never came", client=self.number, room=self.room.slug, number=number)
        for key in self.unanswered:
            tally.bad("missing", "never stored", client=self.number, room=self.room.slug, key=key)


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--url", required=True)
    add("--websocket-url", help="where it is not the same server")
    add("--ca", help="the certificate authority's certificate")
    add("--addresses", type=lambda text: text.split(","), default=[], help="local addresses, a,b,c")
    add("--users", type=lambda text: text.split(","), default=[], help="who log in: name:password,...")
    add("--http", type=int, default=100, help="HTTP clients (%(default)s)")
    add("--http-1", action="store_true", help="none of them by HTTP/2")
    add("--websockets", type=int, default=100, help="chatters (%(default)s)")
    add("--rooms", type=int, default=10, help="that they are in (%(default)s)")
    add("--visitors", type=int, default=10, help="who order jobs (%(default)s)")
    add(
        "--job-kinds",
        type=lambda text: text.split(","),
        default=["flaky"],
        help="the first visitor's, the second's ...; the last is that of all further ones (flaky)",
    )
    add("--pause", type=float, default=1, help="seconds between requests of one client (%(default)s)")
    add("--message-pause", type=float, default=5, help="between messages of one chatter (%(default)s)")
    add("--job-pause", type=float, default=1, help="between jobs of one visitor (%(default)s)")
    add("--seconds", type=float, default=600, help="at most (%(default)s)")
    add("--ramp", type=float, default=10, help="seconds in which all come in (%(default)s)")
    # a chat's heartbeat is 20 s, and a job may be tried again
    add("--settle", type=float, default=90, help="seconds for what is under way at the end (%(default)s)")
    add("--report", type=Path, help="a file for all that is known, as JSON")
    return parser.parse_args(given)


async def run(options):
    load = Load(options)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, load.stopping.set)
    await load()
    return load


def main():
    options = arguments()
    try:
        load = asyncio.run(run(options))
    except (SetupError, httpx.HTTPError) as error:
        print(f"cannot begin: {error!r}", file=sys.stderr)
        return 2
    report = {tally.kind: tally.report() for tally, _ in load.tallies()}
    if options.report:
        options.report.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    for tally, names in load.tallies():
        print(tally.line(*names))
    for tally, _ in load.tallies():
        for reason in tally.reasons:
            shown = [one for one in tally.evidence if reason == f"{one['what']}: {one['reason']}"][:SHOWN]
            for piece in shown:
                print(f"  {json.dumps(piece, ensure_ascii=False)}")
    print("slowest:", json.dumps(load.http.report()["slowest"] | load.jobs.report()["slowest"]))
    return 1 if load.lost() else 0


if __name__ == "__main__":
    sys.exit(main())
