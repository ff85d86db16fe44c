import asyncio

import httpx
import pytest
from upstreams.asgi import application, calls


@pytest.fixture
async def client():
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://upstreams") as client:
        yield client


@pytest.mark.parametrize("path", ["/weather", "/restaurants", "/news", "/stocks"])
async def test_the_same_question_has_the_same_answer_and_another_another(client, path):
    seoul, again, busan = [(await client.get(path, params={"q": q})).json() for q in ("서울", "서울", "부산")]
    assert seoul == again != busan
    assert "서울" in seoul.values()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("delay=soon", "delay is not a number"),
        ("delay=-1", "delay is not between 0 and 10"),
        ("delay=10.1", "delay is not between 0 and 10"),
        ("delay=nan", "delay is not between 0 and 10"),
        ("delay=inf", "delay is not between 0 and 10"),
        ("jitter=3", "jitter is not between 0 and 2"),
        ("failures=2", "failures is not between 0 and 1"),
        (f"q={'x' * 65}", "q is longer than 64 characters"),
        ("q=%ff", "the query is not UTF-8, or has more than ten fields"),
        ("&".join(["q=x"] * 11), "the query is not UTF-8, or has more than ten fields"),
    ],
)
async def test_a_malformed_question_is_refused(client, query, says):
    response = await client.get(f"/weather?{query}")
    assert (response.status_code, response.json()) == (400, {"error": says})


async def test_unknown_paths_and_methods_are_refused(client):
    assert (await client.get("/weather/")).status_code == 404
    assert (await client.post("/weather")).status_code == 405


async def test_the_failure_rate_is_kept(client):
    assert (await client.get("/news", params={"failures": 0})).status_code == 200
    assert (await client.get("/news", params={"failures": 1})).status_code == 503


async def test_calls_whose_caller_goes_are_counted_and_not_answered():
    before = calls.abandoned, calls.answered
    inbox = asyncio.Queue()
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/news", "query_string": b"delay=10"}
    inbox.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    inbox.put_nowait({"type": "http.disconnect"})
    await application(scope, inbox.get, send)
    assert (calls.abandoned, calls.answered) == (before[0] + 1, before[1])
    assert calls.open == 0
    assert sent == []
