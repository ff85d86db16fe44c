"""Both stores of who is here keep the same promises."""

import asyncio
import time

import pytest
from app.servers import PATIENCE
from chat import presence


@pytest.fixture(params=["Redis", "one process"])
def store(request, settings):
    settings.REDIS_URL = request.getfixturevalue("redis") if request.param == "Redis" else ""
    return presence.store()


@pytest.fixture
async def room(store):
    yield (name := f"room {time.time()}")
    for entry in await store.renew(name, "last"):
        await store.leave(name, entry)
    if store is presence.in_redis:
        await store.client.aclose()


async def test_whoever_renews_is_there_and_whoever_leaves_is_not(store, room):
    assert await store.renew(room, "one") == ["one"]
    assert sorted(await store.renew(room, "two")) == ["one", "two"]
    await store.leave(room, "one")
    assert await store.renew(room, "two") == ["two"]


async def test_rooms_are_apart(store, room):
    await store.renew("another", "one")
    assert await store.renew(room, "two") == ["two"]
    await store.leave("another", "one")


async def test_who_is_killed_is_gone_when_the_entry_expires(store, room, monkeypatch):
    """It never says goodbye."""
    monkeypatch.setattr(presence, "LIFETIME", 1)
    await store.renew(room, "killed")
    monkeypatch.undo()
    deadline = time.monotonic() + PATIENCE
    while await store.renew(room, "alive") != ["alive"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_those_who_come_at_once_are_all_there(store, room):
    entries = [f"socket {number}" for number in range(50)]
    await asyncio.gather(*(store.renew(room, entry) for entry in entries))
    assert sorted(await store.renew(room, entries[0])) == sorted(entries)


def test_somebody_with_two_windows_is_one_person():
    entries = [presence.entry(f"socket {number}", "mina", "미나 김") for number in range(2)]
    entries.append(presence.entry("socket 3", "jonas", "Jonas Berg"))
    assert presence.people(entries) == [("jonas", "Jonas Berg"), ("mina", "미나 김")]
    assert presence.sockets_of("mina", entries) == 2
