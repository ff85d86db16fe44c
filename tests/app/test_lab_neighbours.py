"""The lab's own services as real servers; order and numbers are asserted, and no length of time."""

import asyncio
import re

import demo
import httpx
import pytest
from app.servers import ROOT, gunicorn, serving
from asgi_scope import http_scope
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from lab import neighbours, turns
from waiting import wait_until

APP = ROOT / "app"


@pytest.fixture(scope="module")
def asgi_service(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "asgi.sock"
    with serving(
        ["uvicorn", "lab.service:asgi", "--uds", str(path), "--lifespan", "off"], path, cwd=APP
    ) as one:
        yield one


@pytest.fixture(scope="module")
def wsgi_service(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "wsgi.sock"
    with gunicorn(path, "lab.service:wsgi", worker="sync", cwd=APP) as one:
        yield one


@pytest.fixture(autouse=True)
def nobodys_turn(settings, asgi_service, wsgi_service):
    for service in (asgi_service, wsgi_service):
        service.connect().close()
    settings.LAB_ASGI_SOCKET, settings.LAB_WSGI_SOCKET = asgi_service.path, wsgi_service.path
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()


async def seen(client, kind, **query):
    answer = await client.get("/lab/neighbours/data", params={"kind": kind} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def during(answer):
    """The sleeper, and the fast requests that were sent while it slept: on a busy machine not all are."""
    sleeper = answer["sleepers"]["first"]
    fast = [one for one in answer["fast"] if sleeper["began"] < one["sent"] < sleeper["ended"]]
    assert fast
    return sleeper, fast


async def test_500_async_views_sleep_in_one_thread_and_the_fast_view_is_answered_among_them(asgi):
    answer = await seen(asgi, "async")
    assert len(answer["fast"]) == neighbours.ROUNDS
    for fast in answer["fast"]:
        assert (fast["asleep"], fast["asleep_in_threads"], fast["waited_for"]) == (500, 1, 0)
    # What nobody expects: Django holds a thread for each of them all the same.
    assert min(fast["threads"] for fast in answer["fast"]) > 500


async def test_behind_one_sleeper_on_a_sync_worker_everybody_waits(asgi):
    answer = await seen(asgi, "wsgi")
    sleeper, sent = during(answer)
    for fast in sent:
        assert (fast["server"], fast["asleep"], fast["waited_for"]) == ("wsgi", 0, 1)
        assert (fast["process"], fast["thread"]) == (sleeper["process"], sleeper["thread"])


async def test_async_views_run_under_wsgi_and_wait_as_well(asgi):
    answer = await seen(asgi, "wsgi-async")
    sleeper, sent = during(answer)
    assert (sleeper["server"], sleeper["view"]) == ("wsgi", "async sleep")
    assert {(fast["process"], fast["waited_for"]) for fast in sent} == {(sleeper["process"], 1)}
    assert sleeper["thread"] != sleeper["process"]  # an event loop of its own, in a thread


async def test_sleeping_def_views_under_asgi_take_a_thread_each_and_fill_no_pool(asgi):
    answer = await seen(asgi, "def")
    assert {fast["view"] for fast in answer["fast"]} == {"async", "sync"}
    first = [fast for fast in answer["fast"] if not fast["waited_for"]]
    assert {fast["view"] for fast in first} == {"async", "sync"}
    assert max(fast["asleep"] for fast in first) > 32
    for fast in first:
        assert fast["asleep"] == fast["asleep_in_threads"]


async def test_the_event_loops_pool_is_the_bound_for_those_who_need_it(asgi):
    answer = await seen(asgi, "pool")
    asleep = answer["sleepers"]["most_asleep"]
    assert 4 < asleep <= 32 < answer["sleepers"]["asked"]
    views = {view: [fast for fast in answer["fast"] if fast["view"] == view] for view in ("async", "pool")}
    assert max(fast["waited_for"] for fast in views["pool"]) > 0
    assert views["async"][0]["ended"] < views["pool"][0]["ended"]


async def test_behind_one_blocking_call_in_an_async_view_everybody_waits_and_other_visitors_too(asgi):
    asked = asyncio.create_task(seen(asgi, "blocking"))
    while await cache.aget(neighbours.LOCK) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    second = await asgi.get("/lab/neighbours/data?kind=async")
    assert second.status_code == 429
    assert second.headers["Retry-After"]
    sleeper, sent = during(await asked)
    for fast in sent:
        assert (fast["server"], fast["asleep"], fast["waited_for"]) == ("asgi", 0, 1)
        assert (fast["process"], fast["thread"]) == (sleeper["process"], sleeper["thread"])
    assert await cache.aget(neighbours.LOCK) == "rest"
    assert (await asgi.get("/lab/neighbours/data?kind=wsgi")).status_code == 429


async def test_when_the_visitor_goes_the_sleepers_are_sent_home_and_the_turn_is_given_back(asgi_service):
    gone, asked = asyncio.Event(), [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pytest.fail(f"nobody is there to read {message}")

    scope = http_scope("/lab/neighbours/data", "kind=async&sleepers=50")

    def asleep():
        return int(re.search(rb'"asleep": (\d+)', asgi_service.get("/fast/async/", host="lab"))[1])

    request = asyncio.create_task(get_asgi_application()(scope, receive, send))
    await asyncio.to_thread(wait_until, asleep, "a request to sleep")
    gone.set()
    await request
    await asyncio.to_thread(wait_until, lambda: asleep() == 0, "all sleeping requests to be cancelled")
    assert await cache.aget(neighbours.LOCK) == "rest"


async def test_after_a_turn_comes_a_rest_that_ends_by_itself():
    async with neighbours.one_at_a_time():
        pass
    with pytest.raises(turns.BusyError):
        async with neighbours.one_at_a_time():
            pytest.fail("no rest")
    async with asyncio.timeout(20):
        while await cache.aget(neighbours.LOCK):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.django_db
def test_the_demo_shows_them_as_a_table():
    transport = httpx.WSGITransport(get_wsgi_application())
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        _, _, row = demo.neighbours(client, ["wsgi"])
    assert row.startswith(f"  {demo.KINDS['wsgi']} ")
    assert row.endswith("ms, waits")
    assert list(demo.KINDS) == sorted(neighbours.EXPERIMENTS, key=list(demo.KINDS).index)


@pytest.mark.parametrize(
    "query", ["kind=rm", "kind=", "sleepers=501", "sleepers=0", "sleepers=x", "kind=wsgi&sleepers=2"]
)
async def test_what_is_out_of_bounds_is_refused(asgi, query):
    answer = await asgi.get(f"/lab/neighbours/data?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_without_the_services_or_redis_it_says_so(asgi, settings, tmp_path):
    settings.LAB_ASGI_SOCKET = tmp_path / "nobody.sock"
    without_service = await asgi.get("/lab/neighbours/data?kind=blocking")
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
        }
    }
    without_redis = await asgi.get("/lab/neighbours/data?kind=blocking")
    for answer, what in ((without_service, "the lab's asgi service"), (without_redis, "Redis")):
        assert answer.status_code == 503
        assert answer.json()["error"].startswith(what)
        assert str(tmp_path) not in answer.text
