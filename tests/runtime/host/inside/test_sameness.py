"""The same requests by Django's handler and by ours: what differs is where the work is done, nothing else."""

import asyncio
import re

import pytest
from asgi_client import Client

BOUNDARY = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\n%s\r\n--x--\r\n'
MULTIPART = (b"content-type", b"multipart/form-data; boundary=x")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
GZIP = (b"accept-encoding", b"gzip")
STACKS = {
    "Django's own": [],
    "a project's own, inside": ["leansite.Mixed", "leansite.Both", "leansite.Ordered"],
    "a synchronous one in the middle": ["leansite.synchronous", "leansite.raising", "leansite.Both"],
}


async def csrf(client, token=None, **more):
    page = await client.request("GET", "/form")
    yield page
    value = page.body if token is None else token
    yield await client.request("POST", "/form", b"a=1&csrfmiddlewaretoken=" + value, headers=[FORM])


async def walk(client):
    """Everything that a client does, in turn; what it was answered."""
    get = [
        "/hello", "/hello?name=x", "/sync_hello", "/hello?mixed=1", "/hello?middleware=1", "/count",
        "/count", "/sync_count", "/expiring", "/forget", "/count", "/login", "/who", "/sync_who", "/say",
        "/heard", "/heard", "/copied", "/heard", "/deleted", "/large", "/page", "/language", "/missing",
        "/denied", "/suspicious", "/fails", "/fails?why=rescued", "/sync_fails", "/sync_fails?why=rescued",
        "/nothing", "/stream", "/sync_stream", "/sent_file", "/closers", "/closed", "/cookies", "/cookies",
        "/rows", "/cached", "/slash", "/slash/", "/nowhere", "/interrupted",
    ]  # fmt: skip
    for target in get:
        yield f"GET {target}", await client.request("GET", target)
    yield "HEAD", await client.request("HEAD", "/hello")
    yield "gzip", await client.request("GET", "/large", headers=[GZIP])
    yield "korean", await client.request("GET", "/language", headers=[(b"accept-language", b"ko")])
    first = await client.request("GET", "/hello")
    etag = first.header("etag")[0].encode()
    yield "not modified", await client.request("GET", "/hello", headers=[(b"if-none-match", etag)])
    yield "a host that is not ours", await client.request("GET", "/hello", headers=[(b"host", b"other")])
    async for n in numbered(csrf(client)):
        yield f"form {n[0]}", n[1]
    async for n in numbered(csrf(client, token=b"wrong")):
        yield f"wrong token {n[0]}", n[1]
    yield "no token", await client.request("POST", "/form", b"a=1", headers=[FORM])
    yield "exempt", await client.request("POST", "/body", b"x" * 300000)
    page = await client.request("GET", "/form")
    for size in (10, 3_000_000):  # the second goes to a file
        yield (
            f"upload of {size}",
            await client.request(
                "POST", "/form", BOUNDARY % (b"y" * size), headers=[MULTIPART, (b"x-csrftoken", page.body)]
            ),
        )


async def numbered(answers):
    n = 0
    async for answer in answers:
        n += 1
        yield n, answer


def shown(answer):
    """Without what is drawn by lot."""
    headers = sorted(
        (name, re.sub(r"((?:csrftoken|sessionid|messages)=)[^;]+|expires=[^;]+", r"\1*", value))
        for name, value in answer.headers
    )
    body = answer.body
    if len(body) == 64 and body.isalnum():
        body = b"a token"
    if ("Content-Encoding", "gzip") in headers:
        import gzip

        body = gzip.decompress(body)
        headers = [one for one in headers if one[0] not in ("Content-Length", "ETag")]
    if body == b"a token":
        headers = [one for one in headers if one[0] != "ETag"]
    return answer.status, headers, body, answer.error


def walked(application):
    from leansite import ran

    async def go():
        client = Client(application)
        steps = walk(client)
        found = []
        while True:
            ran.clear()
            try:
                name, answer = await anext(steps)
            except StopAsyncIteration:
                return found
            found.append((name, shown(answer), list(ran)))

    return asyncio.run(go())


def listeners():
    from leansite import mark

    def started(sender, scope, **kwargs):
        mark(f"started {sender.__name__} {scope['path']}")

    def finished(sender, **kwargs):
        mark(f"finished {sender.__name__}")

    async def afinished(sender, **kwargs):
        mark(f"finished asynchronously {sender.__name__}")

    def failed(sender, request, **kwargs):
        mark(f"failed {request.path}")

    return started, finished, afinished, failed


@pytest.fixture(params=["nobody listens", "somebody listens", "somebody awaits"])
def listening(request, django):
    from django.core import signals

    started, finished, afinished, failed = listeners()
    connected = {
        "nobody listens": [],
        "somebody listens": [
            (signals.request_started, started),
            (signals.request_finished, finished),
            (signals.got_request_exception, failed),
        ],
        "somebody awaits": [(signals.request_finished, afinished), (signals.request_finished, finished)],
    }[request.param]
    for signal, receiver in connected:
        signal.connect(receiver)
    yield
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.mark.parametrize("stack", STACKS)
def test_both_answer_the_same_and_a_request_keeps_to_one_thread(django, listening, stack):
    from django.contrib.sessions.models import Session
    from django.core.handlers.asgi import ASGIHandler
    from django.db import connections
    from django.test import override_settings
    from leansite import DEFAULT_MIDDLEWARE
    from pergola_runtime.lean import LeanHandler

    results = []
    with override_settings(MIDDLEWARE=DEFAULT_MIDDLEWARE + STACKS[stack]):
        for handler in (ASGIHandler, LeanHandler):
            Session.objects.all().delete()
            connections.close_all()
            results.append(walked(handler()))
    theirs, ours = results
    assert [name for name, *_ in ours] == [name for name, *_ in theirs]
    assert len(ours) > 50
    for (name, expected, their_marks), (_, found, our_marks) in zip(theirs, ours, strict=True):
        assert found == expected, name
        assert [what for what, _ in our_marks] == [what for what, _ in their_marks], name
        # Django makes the answer to an exception on any thread
        sensitive = {where for what, where in our_marks if not what.startswith("failed")}
        assert len(sensitive - {"loop"}) <= 1, (name, our_marks)


def test_hosts_that_are_asked_of_the_database_are_asked_in_a_thread(django):
    from django.core.handlers.asgi import ASGIHandler
    from django.test import override_settings
    from leansite import Hosts, ran
    from pergola_runtime.lean import LeanHandler

    for handler in (ASGIHandler, LeanHandler):
        ran.clear()
        with override_settings(ALLOWED_HOSTS=Hosts(["testserver"])):
            status, *_ = walked_briefly(handler())
        assert status == 200, handler
        assert {"hosts"} < {what for what, _ in ran}


def test_answers_differ_where_a_page_does(django):
    """That the comparison sees something."""
    from django.core.handlers.asgi import ASGIHandler
    from django.test import override_settings

    with override_settings(MIDDLEWARE=["leansite.Mixed"]):
        one = walked_briefly(ASGIHandler())
    with override_settings(MIDDLEWARE=[]):
        other = walked_briefly(ASGIHandler())
    assert one != other


def walked_briefly(application):
    async def go():
        return shown(await Client(application).request("GET", "/hello"))

    return asyncio.run(go())
