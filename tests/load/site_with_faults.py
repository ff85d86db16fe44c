"""What speaks to the load clients, in memory, and wrong on purpose where FAULTS says so."""

import asyncio
import json
import os
import uuid
from urllib.parse import parse_qs

FAULTS = set(os.environ.get("FAULTS", "").split(","))
FORM = '<input type="hidden" name="csrfmiddlewaretoken" value="x">'

posts, rooms, jobs = [], {}, {}
counted, happened = {}, {}


def faulty(fault, every):
    """Each `every`th time."""
    counted[fault] = counted.get(fault, 0) + 1
    if fault not in FAULTS or counted[fault] % every:
        return False
    happened[fault] = happened.get(fault, 0) + 1
    return True


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await chat(scope, receive, send)
        return
    body = b""
    while (event := await receive()).get("more_body"):
        body += event["body"]
    body += event.get("body", b"")
    query = parse_qs(scope["query_string"].decode())
    cookie = dict(scope["headers"]).get(b"cookie", b"").decode()
    status, text, headers = await answer(scope["method"], scope["path"], query, cookie, body.decode())
    headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def answer(method, path, query, cookie, body):
    match method, path:
        case "POST", "/api/ninja/tokens":
            return 201, json.dumps({"token": "t"}), {}
        case "POST", "/api/ninja/posts":
            if not faulty("post lost", 5):
                posts.append(json.loads(body)["title"])
            return 201, "{}", {}
        case "GET", "/api/ninja/posts":
            return 200, json.dumps({"count": posts.count(query["search"][0])}), {}
        case "POST", "/login/":
            return 302, "", {"Location": "/", "Set-Cookie": "sessionid=s; Path=/"}
        case "POST", "/chat/":
            slug = parse_qs(body)["name"][0].replace(" ", "-")
            rooms[slug] = Room()
            return 302, "", {"Location": f"/chat/{slug}/"}
        case "POST", "/jobs/start":
            visitor = cookie.partition("jobs=")[2] or uuid.uuid4().hex
            text = parse_qs(body)["text"][0]
            for _ in range(2 if faulty("job twice", 4) else 1):
                order(visitor, text)
            return 302, "", {"Location": "/jobs/", "Set-Cookie": f"jobs={visitor}; Path=/"}
        case "GET", "/jobs/":
            mine = [f'<a href="/jobs/{number}">' for number, job in jobs.items() if job["visitor"] in cookie]
            return 200, FORM + "".join(mine[-10:]), {}
        case "GET", _ if path.startswith("/jobs/"):
            return 200, json.dumps(jobs[path.removeprefix("/jobs/")]), {}
        case "GET", "/lab/async/sleep/":
            await asyncio.sleep(0.5)
        case "GET", "/happened":
            return 200, json.dumps(happened), {}
        case "GET", "/" if faulty("error", 5):
            return 500, "oh", {}
    return 200, FORM, {}


def order(visitor, text):
    lost = faulty("job lost", 3)
    jobs[str(uuid.uuid4())] = {
        "visitor": visitor,
        "text": text,
        "finished": True,
        "status": "failed" if lost else "done",
        "effects": 0 if lost else 2 if faulty("effect twice", 3) else 1,
    }


class Room:
    def __init__(self):
        self.messages, self.sockets = [], set()

    def store(self, key, text):
        for message in self.messages:
            if message["key"] == key:
                return message["id"]
        for _ in range(2 if faulty("message stored twice", 5) else 1):
            self.messages.append({"id": len(self.messages) + 1, "key": key, "text": text})
        return len(self.messages)


async def chat(scope, receive, send):
    room = rooms[scope["path"].split("/")[3]]
    since = parse_qs(scope["query_string"].decode()).get("since", [len(room.messages)])[0]
    await receive()
    await send({"type": "websocket.accept"})

    async def tell(**frame):
        await send({"type": "websocket.send", "text": json.dumps(frame)})

    async def show(messages):
        messages = [message for message in messages if not faulty("message lost", 7)]
        await tell(type="messages", messages=messages)
        if faulty("message sent twice", 7):
            await tell(type="messages", messages=messages)

    await tell(type="welcome", last=len(room.messages))
    await show(room.messages[int(since) :])
    room.sockets.add(show)
    while (event := await receive())["type"] == "websocket.receive":
        frame = json.loads(event["text"])
        before = len(room.messages)
        number = room.store(frame["key"], frame["text"])
        for one in list(room.sockets):
            await one(room.messages[before:])
        if faulty("message unanswered", 7):
            await send({"type": "websocket.close", "code": 1011})
            break
        await tell(type="stored", key=frame["key"], id=number)
    room.sockets.discard(show)
