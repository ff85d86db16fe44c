import asyncio
import itertools
import threading
import time

import pytest
from cache import stampede
from cache.per_view import async_cache_page
from cache.stampede import get_or_compute
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpResponse
from django.views.decorators.cache import cache_page

threads = []


class Watched(LocMemCache):
    """A cache in memory that notes the thread of whoever asks."""

    def get(self, *args, **kwargs):
        threads.append(threading.get_native_id())
        return super().get(*args, **kwargs)


@pytest.fixture
def local(settings):
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Watched", "LOCATION": "tests"}}
    threads.clear()
    yield
    cache.clear()


class Computation:
    """Runs until it is told to end, and counts."""

    def __init__(self):
        self.count = 0
        self.running, self.end = asyncio.Event(), asyncio.Event()

    async def __call__(self):
        self.count += 1
        self.running.set()
        await self.end.wait()
        return self.count


async def at_once(value):
    return value


@pytest.mark.usefixtures("local")
async def test_the_first_computes_and_the_next_finds_it():
    assert await get_or_compute("key", lambda: at_once(1)) == (1, "computed")
    assert await get_or_compute("key", lambda: at_once(2)) == (1, "hit")


@pytest.mark.usefixtures("local")
async def test_one_computes_and_the_others_wait_for_it():
    compute = Computation()
    askers = [asyncio.create_task(get_or_compute("key", compute)) for _ in range(8)]
    await compute.running.wait()
    compute.end.set()
    answers = await asyncio.gather(*askers)
    assert {value for value, _ in answers} == {1}
    assert sorted(outcome for _, outcome in answers) == ["computed"] + 7 * ["waited"]
    assert compute.count == 1


@pytest.mark.usefixtures("local")
async def test_a_stale_value_is_handed_out_while_one_computes_the_next():
    await get_or_compute("key", lambda: at_once("old"), fresh=0)
    compute = Computation()
    first = asyncio.create_task(get_or_compute("key", compute))
    await compute.running.wait()
    assert await get_or_compute("key", compute) == ("old", "stale")
    compute.end.set()
    assert await first == (1, "computed")
    assert compute.count == 1


@pytest.mark.usefixtures("local")
async def test_a_failure_is_the_askers_own_and_the_next_one_tries():
    async def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await get_or_compute("key", fails)
    assert await get_or_compute("key", lambda: at_once(1)) == (1, "computed")


@pytest.mark.usefixtures("local")
async def test_one_who_goes_away_gives_the_lock_back():
    compute = Computation()
    first = asyncio.create_task(get_or_compute("key", compute))
    await compute.running.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await get_or_compute("key", lambda: at_once(1)) == (1, "computed")


@pytest.mark.usefixtures("local")
async def test_nobody_waits_for_ever_for_a_holder_that_died():
    await stampede.lock("key", 3600)
    with pytest.raises(TimeoutError):
        await get_or_compute("key", lambda: at_once(1), limit=0.1)


@pytest.mark.usefixtures("local")
async def test_the_lock_of_another_is_not_given_back():
    await cache.aset("key:lock", "another's")
    assert await stampede.computed("key", "mine", lambda: at_once(1), 10, 60, 5, "hit") == (1, "computed")
    assert await cache.aget("key:lock") == "another's"


@pytest.mark.usefixtures("local")
async def test_what_another_has_computed_just_before_our_lock_is_not_computed_again(monkeypatch):
    lock = stampede.lock

    async def late(key, limit):
        await cache.aset(key, ("another's", time.time() + 60))
        return await lock(key, limit)

    monkeypatch.setattr(stampede, "lock", late)
    assert await get_or_compute("key", lambda: at_once("ours")) == ("another's", "hit")
    assert await cache.aget("key:lock") is None


@pytest.mark.usefixtures("local")
async def test_who_waited_says_so_also_when_the_value_comes_just_before_the_lock(monkeypatch):
    lock, looks = stampede.lock, itertools.count()

    async def late(key, limit):
        if next(looks) == 0:
            return None
        await cache.aset(key, ("another's", time.time() + 60))
        return await lock(key, limit)

    monkeypatch.setattr(stampede, "lock", late)
    assert await get_or_compute("key", lambda: at_once("ours")) == ("another's", "waited")


async def test_without_redis_the_page_is_made_all_the_same(async_client):
    first, second = [(await async_client.get("/cache/page", {"seconds": "0"})).json() for _ in range(2)]
    assert first["computed"]["ended"] < second["computed"]["began"]


async def test_without_redis_the_value_is_computed_all_the_same():
    """The tests' REDIS_URL is where nobody answers."""
    assert await get_or_compute("key", lambda: at_once(1)) == (1, "bypassed")


answers = itertools.count()


async def async_answer(request):
    return HttpResponse(str(next(answers)))


@pytest.mark.usefixtures("local")
async def test_our_page_cache_asks_outside_of_the_event_loop_and_keeps_the_answer(async_rf):
    view = async_cache_page(60)(async_answer)
    first = await view(async_rf.get("/page"))
    second = await view(async_rf.get("/page"))
    assert first.content == second.content
    assert threads
    assert threading.get_native_id() not in threads


@pytest.mark.usefixtures("local")
async def test_djangos_own_still_asks_in_the_event_loop(async_rf):
    """The day this fails, cache_page is fit for async views and ours can go."""
    await cache_page(60)(async_answer)(async_rf.get("/page"))
    assert set(threads) == {threading.get_native_id()}


@pytest.mark.usefixtures("local")
async def test_the_cached_page_computes_once(async_client):
    first = await async_client.get("/cache/page", {"seconds": "0"})
    second = await async_client.get("/cache/page", {"seconds": "0"})
    assert first.json() == second.json()
    assert (await async_client.get("/cache/page", {"seconds": "0.01"})).json() != first.json()


@pytest.mark.parametrize(
    "query", ["name=", "name=UPPER", "name=%EA%B0%80", "name=" + 17 * "a", "seconds=3", "seconds=x"]
)
async def test_a_parameter_out_of_bounds_is_refused(async_client, query):
    refused = await async_client.get(f"/cache/value?{query}")
    assert refused.status_code == 400
    assert refused.json()["error"].startswith(query.split("=")[0])
