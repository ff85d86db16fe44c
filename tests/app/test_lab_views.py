import asyncio
import os
import re
import threading

import pytest
from app.intervals import all_overlap
from asgiref.sync import ThreadSensitiveContext
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from lab import deadlock, kinds, traps
from lab.turns import BusyError, Turns


@pytest.fixture(autouse=True)
def everybodys_turn():
    for turns in (kinds.harmful, kinds.computing, deadlock.turns):
        turns.reset()


def loop_thread():
    return threading.get_native_id()


@pytest.mark.parametrize("path", ["", "sleep/?seconds=0"])
async def test_an_async_view_runs_in_the_event_loops_thread_and_a_sync_view_in_another(async_client, path):
    ours = (await async_client.get(f"/lab/async/{path}")).json()
    theirs = (await async_client.get(f"/lab/sync/{path}")).json()
    assert ours["server"] == theirs["server"] == "asgi"
    assert ours["process"] == theirs["process"] == os.getpid()
    assert ours["thread"] == loop_thread() != theirs["thread"]


@pytest.mark.parametrize("view", ["sync", "async"])
async def test_views_that_sleep_do_so_at_the_same_time(asgi, view):
    answers = await asyncio.gather(*(asgi.get(f"/lab/{view}/sleep/?seconds=0.5") for _ in range(3)))
    calls = [answer.json() for answer in answers]
    assert all_overlap(calls)
    threads = {call["thread"] for call in calls}
    assert len(threads) == (3 if view == "sync" else 1)


@pytest.mark.django_db
@pytest.mark.parametrize("view", ["sync", "async"])
def test_a_row_takes_one_query_in_either_form(client, view, django_assert_num_queries):
    with django_assert_num_queries(1):
        answer = client.get(f"/lab/{view}/row/")
    assert answer.json()["view"] == f"{view} row"


def test_an_async_view_also_answers_under_wsgi_in_a_thread_of_its_own_event_loop(client):
    ours, theirs = client.get("/lab/async/").json(), client.get("/lab/sync/").json()
    assert ours["server"] == theirs["server"] == "wsgi"
    assert theirs["thread"] == threading.get_native_id() != ours["thread"]


@pytest.mark.parametrize("kind", ["blocking", "cpu-inline"])
async def test_work_in_the_event_loop_lets_no_neighbour_go_on(async_client, kind):
    answer = (await async_client.get("/lab/task/", {"kind": kind, "seconds": "0.2"})).json()
    assert answer["thread"] == loop_thread()
    assert answer["neighbour"]["turns"] == 0
    assert answer["neighbour"]["longest_wait"] > answer["ended"] - answer["began"] - kinds.TICK


@pytest.mark.parametrize("kind", ["to-thread", "free-thread", "request-thread", "cpu-thread"])
async def test_work_in_a_thread_lets_neighbours_go_on(async_client, kind):
    answer = (await async_client.get("/lab/task/", {"kind": kind, "seconds": "0.2"})).json()
    assert answer["process"] == os.getpid()
    assert answer["thread"] != loop_thread()
    assert answer["neighbour"]["turns"] > 0


async def test_a_sleep_in_the_event_loop_lets_neighbours_go_on(async_client):
    answer = (await async_client.get("/lab/task/", {"kind": "async-sleep", "seconds": "0.2"})).json()
    assert answer["thread"] == loop_thread()
    assert answer["neighbour"]["turns"] > 0


@pytest.mark.parametrize(
    "path",
    [
        "sync/sleep/?seconds=6",
        "sync/sleep/?seconds=nan",
        "async/sleep/?seconds=-1",
        "async/sleep/?seconds=inf",
        "async/sleep/?seconds=",
        "task/?seconds=2.1",
        "task/?kind=rm",
        "deadlock/?seconds=60",
    ],
)
async def test_a_parameter_out_of_bounds_is_refused_with_its_bounds(async_client, path):
    answer = await async_client.get(f"/lab/{path}")
    assert answer.status_code == 400
    assert re.search("from .* to |must be one of: ", answer.json()["error"])


async def test_harm_takes_turns(async_client):
    first, second = await asyncio.gather(
        *(async_client.get("/lab/task/", {"kind": "cpu-thread", "seconds": "0.3"}) for _ in range(2))
    )
    assert [first.status_code, second.status_code] == [200, 429]
    assert second["Retry-After"]
    assert (await async_client.get("/lab/task/", {"kind": "blocking", "seconds": "0"})).status_code == 429


def test_after_a_turn_there_is_a_rest_and_a_failure_gives_the_place_back():
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError), turns.one():
        raise ZeroDivisionError
    assert turns.taken == 0
    turns.opens = float("inf")
    with pytest.raises(BusyError), turns.one():
        pass


async def test_the_deadlock_is_one_until_its_leash_ends(asgi):
    answer = (await asgi.get("/lab/deadlock/?seconds=0.2")).json()
    assert answer["outcome"] == "deadlock"
    assert answer["inner"] is None


async def test_mended_the_inner_call_runs_in_the_very_thread_that_waits_for_it(asgi):
    answer = (await asgi.get("/lab/deadlock/mended/")).json()
    outer, inner = answer["outer"], answer["inner"]
    assert answer["outcome"] == "answered"
    assert inner["thread"] == outer["thread"] != loop_thread()
    assert outer["began"] <= inner["began"] <= inner["ended"] <= outer["ended"]


async def test_whoever_gives_up_frees_the_deadlocks_thread():
    """With a leash that no test would wait for."""
    locked = deadlock.Deadlock()
    async with ThreadSensitiveContext():
        task = asyncio.create_task(locked.run(3600))
        assert await asyncio.to_thread(locked.began.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(locked.ended.wait, 20)
    assert locked.outcome == "cancelled"


@pytest.fixture
async def user():
    return await User.objects.acreate_user("mina")


@pytest.mark.django_db(transaction=True)
async def test_the_orm_page_shows_each_trap_shut_and_mended_where_somebody_is_signed_in(async_client, user):
    await async_client.aforce_login(user)
    answer = await async_client.get("/lab/orm/")
    for trap in answer.context["traps"]:
        assert trap["failing"].get("error", "").startswith("SynchronousOnlyOperation"), trap["title"]
        for way in trap["mended"]:
            assert way["answer"], way["name"]
    assert answer.context["traps"][-1]["mended"][0]["answer"] == f"user {user.pk}"


@pytest.mark.django_db(transaction=True)
async def test_the_user_of_nobody_is_known_without_a_query(async_client):
    answer = await async_client.get("/lab/orm/")
    assert answer.context["traps"][-1]["failing"]["answer"] == "user None"
    assert "You are not logged in" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
async def test_the_trap_is_still_there(async_client, user):
    """The day this fails, request.user may be used in async views, and the page tells yesterday's news."""
    await async_client.aforce_login(user)
    request = (await async_client.get("/lab/orm/")).asgi_request
    del request._acached_user  # what auser() has found
    with pytest.raises(SynchronousOnlyOperation):
        await traps.lazy_user(request)
    assert await traps.awaited_user(request) == f"user {user.pk}"


@pytest.mark.usefixtures("collected")
@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/lab/", "/lab/neighbours/", "/lab/orm/", "/lab/hops/", "/legacy/", "/cache/"]
)
def test_pages_load_hashed_files_alone_and_nothing_inline(client, collected, path):
    page = client.get(path).content.decode()
    links = re.findall(r'(?:src|href)="/static/([^"]+)"', page)
    assert len(links) >= 3
    for link in links:
        assert (collected / link).is_file()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
    assert re.search(r'Source: <a href="/source/\w+/\w+\.py"><code>app/', page)
    assert "https://docs.djangoproject.com/" in page


@pytest.mark.parametrize(
    "path",
    [
        "/lab/",
        "/lab/task/",
        "/lab/neighbours/data",
        "/lab/sync/",
        "/lab/hops/",
        "/legacy/",
        "/legacy/data",
        "/cache/value",
    ],
)
def test_what_only_shows_takes_no_post(client, path):
    assert client.post(path).status_code == 405
