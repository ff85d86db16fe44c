"""Against the upstreams as a process of their own, over a unix socket; no figure of the clock is asserted."""

import asyncio
import itertools
import re

import demo
import httpx
import pytest
from app.servers import ROOT, serving
from asgi_scope import http_scope
from asgiref.sync import async_to_sync
from dashboard import clients
from dashboard.calls import Call, together
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import AsyncClient, Client

APP = ROOT / "app"
VARIANTS = [("httpx", "gather"), ("aiohttp", "taskgroup")]


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory):
    path = tmp_path_factory.mktemp("upstreams") / "upstreams.sock"
    command = ["uvicorn", "upstreams.asgi:application", "--uds", str(path), "--lifespan", "off"]
    with serving(command, path, cwd=APP) as server:
        server.connect().close()
        yield server


@pytest.fixture(autouse=True)
def socket_of_the_upstreams(settings, upstreams):
    settings.UPSTREAMS_SOCKET = upstreams.path


def intervals(answer):
    return [(call["start"], call["end"]) for call in answer["calls"]]


def outcomes(answer):
    return [call["outcome"] for call in answer["calls"]]


def all_overlap(answer):
    return max(start for start, _ in intervals(answer)) < min(end for _, end in intervals(answer))


async def get(path="data", **query):
    response = await AsyncClient().get(f"/dashboard/{path}", query)
    assert response.status_code == 200, response.content
    return response.json()


@pytest.mark.parametrize(("client", "by"), VARIANTS)
async def test_calls_made_together_overlap(client, by):
    answer = await get(mode="async", count=5, delay="0.2", client=client, by=by)
    assert (answer["mode"], answer["client"], answer["by"]) == ("async", client, by)
    assert [call["service"] for call in answer["calls"]] == [
        "weather",
        "restaurants",
        "news",
        "stocks",
        "weather",
    ]
    assert outcomes(answer) == ["ok"] * 5
    assert all_overlap(answer)
    assert answer["calls"][0]["data"]["city"] == "Seoul"


@pytest.mark.parametrize("path", ["data", "sync"])
async def test_calls_one_after_another_do_not_overlap(path):
    answer = await get(path, mode="sync", count=3, delay="0.05")
    assert outcomes(answer) == ["ok"] * 3
    for (_, end), (start, _) in itertools.pairwise(intervals(answer)):
        assert start >= end
    assert answer["elapsed"] >= sum(end - start for start, end in intervals(answer))


async def test_unequal_delays_end_in_their_own_order_and_are_told_in_the_calls():
    answer = await get(delay="0.8,0,0.4")
    assert all_overlap(answer)
    by_end = sorted(answer["calls"], key=lambda call: call["end"])
    assert [call["service"] for call in by_end] == ["restaurants", "news", "weather"]
    assert [call["service"] for call in answer["calls"]] == ["weather", "restaurants", "news"]


@pytest.mark.parametrize(("client", "by"), VARIANTS)
async def test_a_late_service_costs_its_own_answer_alone(client, by):
    answer = await get(delay="0,5,0", timeout="1", client=client, by=by)
    assert outcomes(answer) == ["ok", "late", "ok"]
    assert answer["partial"]
    assert answer["calls"][1]["error"] == "TimeoutError"
    assert answer["calls"][1]["data"] is None


@pytest.mark.parametrize("query", [{"mode": "sync"}, {"client": "httpx"}, {"client": "aiohttp"}])
async def test_a_service_that_fails_is_told_and_not_raised(query):
    answer = await get(delay="0", failures=1, **query)
    assert outcomes(answer) == ["failed"] * 3
    assert {call["error"] for call in answer["calls"]} == {"HTTP 503"}


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_late_one_after_another_too(mode):
    answer = await get(mode=mode, delay="0,5", timeout="1")
    assert outcomes(answer) == ["ok", "late"]


@pytest.mark.parametrize("query", [{"mode": "sync"}, {"client": "httpx"}, {"client": "aiohttp"}])
async def test_without_the_upstreams_the_page_still_answers(settings, tmp_path, query):
    settings.UPSTREAMS_SOCKET = tmp_path / "nobody.sock"
    answer = await get(delay="0", **query)
    assert outcomes(answer) == ["failed"] * 3
    assert str(tmp_path) not in str(answer)


def test_the_data_under_wsgi_too():
    for mode in ("async", "sync"):
        assert outcomes(Client().get("/dashboard/data", {"mode": mode, "delay": "0"}).json()) == ["ok"] * 3


@pytest.mark.django_db
def test_the_demo_shows_both(monkeypatch):
    monkeypatch.setattr(demo, "DELAY", 0.05)
    transport = httpx.WSGITransport(get_wsgi_application())
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        _, *rows = demo.calls(client)
    assert [row.split("  ")[1] for row in rows] == ["one after another", "together"]


async def upstreams_say(condition):
    """What became of the calls, once it is as expected."""
    async with asyncio.timeout(20):
        while not condition(calls := (await (await clients.pool()).httpx.get("/calls")).json()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return calls


@pytest.mark.parametrize(
    ("path", "query", "count"),
    [("data", f"count=3&client={client}&by={by}", 3) for client, by in VARIANTS] + [("drf", "", 2)],
)
async def test_when_the_client_goes_the_calls_that_run_are_dropped(path, query, count):
    """Django's handler gets the disconnect of a real request; the upstreams tell that their callers went."""
    before = await upstreams_say(lambda calls: calls["open"] == 0)
    gone = asyncio.Event()
    first = True

    async def receive():
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pytest.fail(f"nobody is there to read {message}")

    scope = http_scope(f"/dashboard/{path}", f"delay=5&timeout=10&{query}")
    request = asyncio.create_task(get_asgi_application()(scope, receive, send))
    await upstreams_say(lambda calls: calls["open"] == count)
    gone.set()
    await request
    after = await upstreams_say(lambda calls: calls["open"] == 0)
    assert after["abandoned"] == before["abandoned"] + count
    assert after["answered"] == before["answered"]


@pytest.mark.parametrize(
    "loop", [lambda use: asyncio.run(use()), lambda use: async_to_sync(use)()], ids=["run", "wsgi"]
)
def test_one_pool_a_loop_and_it_is_closed_with_it(loop):
    async def use():
        pools = await asyncio.gather(*(clients.pool() for _ in range(10)))
        assert len({id(pool) for pool in pools}) == 1
        await together([Call("news")], "httpx")
        await together([Call("news")], "aiohttp")
        return pools[0]

    pool = loop(use)
    assert pool.httpx.is_closed
    assert pool.aiohttp.closed
    assert pool not in [kept for _, kept in clients.pools.values()]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"mode": "fast"}, "mode"),
        ({"client": "requests"}, "client"),
        ({"by": "hand"}, "by"),
        ({"count": "0"}, "count"),
        ({"count": "11"}, "count"),
        ({"count": "three"}, "count"),
        ({"count": "9" * 5000}, "count"),
        ({"delay": ""}, "delay"),
        ({"delay": "1,"}, "delay"),
        ({"delay": "soon"}, "delay"),
        ({"delay": "-1"}, "delay"),
        ({"delay": "5.01"}, "delay"),
        ({"delay": "nan"}, "delay"),
        ({"delay": "1\x00"}, "delay"),
        ({"delay": "1,2", "count": "3"}, "delay"),
        ({"delay": ",".join("1" * 11)}, "count"),
        ({"delay": "1" * 101}, "delay"),
        ({"delay": "5", "count": "10", "mode": "sync"}, "delay"),
        ({"timeout": "0"}, "timeout"),
        ({"timeout": "11"}, "timeout"),
        ({"failures": "inf"}, "failures"),
        ({"jitter": "2"}, "jitter"),
    ],
)
async def test_a_question_out_of_bounds_is_refused(query, field):
    response = await AsyncClient().get("/dashboard/data", query)
    assert response.status_code == 400
    assert list(response.json()["errors"]) == [field]


async def test_two_are_asked_together_by_an_async_view_of_rest_framework():
    response = await AsyncClient().get("/dashboard/drf", {"delay": "0.1,0.3", "timeout": "0.2"})
    answer = response.json()
    weather, restaurants = answer["weather"], answer["restaurants"]
    assert (weather["outcome"], restaurants["outcome"], answer["partial"]) == ("ok", "late", True)
    assert restaurants["start"] < weather["end"]


@pytest.mark.parametrize(
    "query", ["delay=nan", "delay=1,2,3", "delay=6", "timeout=x", "jitter=9", "failures=2"]
)
async def test_what_rest_framework_cannot_ask_is_a_problem(query):
    response = await AsyncClient().get(f"/dashboard/drf?{query}")
    assert response.status_code == 422
    assert response["Content-Type"] == "application/problem+json"
    assert [error["parameter"] for error in response.json()["errors"]] == [query.split("=")[0]]


@pytest.mark.parametrize(("method", "accept", "status"), [("post", "*/*", 405), ("get", "text/csv", 406)])
def test_what_rest_framework_refuses_is_a_problem(client, method, accept, status):
    response = getattr(client, method)("/dashboard/drf", headers={"Accept": accept})
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")


def test_a_question_out_of_bounds_is_refused_by_the_def_view_too(client):
    assert list(client.get("/dashboard/sync?count=0").json()["errors"]) == ["count"]


def test_the_data_takes_no_post(client):
    assert client.post("/dashboard/data").status_code == 405


def test_the_page_has_nothing_inline_and_labels_every_field(client, collected):
    page = client.get("/dashboard/").content.decode()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
    fields = re.findall(r"<(?:input|select)[^>]* id=\"(\w+)\"", page)
    assert len(fields) == 8
    assert re.findall(r'<label for="(\w+)"', page) == fields
    for link in re.findall(r'(?:src|href)="/static/([^"]+)"', page):
        assert (collected / link).is_file()
