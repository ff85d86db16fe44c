"""Sleepers and who is answered among them, through the whole stack. They sleep on the lab's own services, as
any visitor may have them do, so that this is safe on production.
"""

import time

import pytest

PATIENCE = 60


def seen(client, kind):
    """One experiment runs at a time, and rests as long: a visitor's may be first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = client.get("/lab/neighbours/data", params={"kind": kind}, timeout=30)
        if answer.status_code != 429 or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {one["process"] for one in found["fast"]}.isdisjoint({found["process"]})
    return found


def test_among_500_sleeping_async_views_the_fast_view_is_answered(client):
    for fast in seen(client, "async")["fast"]:
        assert (fast["asleep"], fast["asleep_in_threads"], fast["waited_for"]) == (500, 1, 0)


def test_among_sleeping_def_views_under_asgi_the_fast_views_are_answered_a_thread_for_each(client):
    fast = [one for one in seen(client, "def")["fast"] if not one["waited_for"]]
    assert {one["view"] for one in fast} == {"async", "sync"}
    assert max(one["asleep"] for one in fast) > 32  # more than any pool of an event loop has
    for one in fast:
        assert one["asleep"] == one["asleep_in_threads"]


@pytest.mark.parametrize("kind", ["wsgi", "blocking"])
def test_behind_a_sync_worker_or_a_blocking_call_everybody_waits(client, kind):
    found = seen(client, kind)
    sleeper = found["sleepers"]["first"]
    sent = [one for one in found["fast"] if sleeper["began"] < one["sent"] < sleeper["ended"]]
    assert sent
    for one in sent:
        assert (one["process"], one["thread"]) == (sleeper["process"], sleeper["thread"])
        assert (one["asleep"], one["waited_for"]) == (0, 1)
