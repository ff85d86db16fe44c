import threading

import pytest
from app.intervals import all_overlap, none_overlap
from django.db import connection, connections
from legacy import bridge

pytestmark = pytest.mark.django_db(transaction=True)


async def ask(async_client, **parameters):
    answer = await async_client.get("/legacy/data", parameters)
    assert answer.status_code == 200
    return answer.json()


async def test_thread_sensitive_calls_share_one_thread_and_wait_for_each_other(async_client):
    answer = await ask(async_client, mode="sensitive", seconds="0.1")
    calls = [*answer["messages"], answer["report"]]
    assert len(answer["messages"]) == 3
    assert answer["threads"] == 1
    assert calls[0]["thread"] != answer["event_loop"]["thread"] == threading.get_native_id()
    assert none_overlap(calls)


async def test_free_calls_overlap_each_in_a_thread_of_its_own(async_client):
    answer = await ask(async_client, mode="free", seconds="0.5")
    calls = [*answer["messages"], answer["report"]]
    assert answer["threads"] == len(calls) == 4
    assert all_overlap(calls)


async def test_a_session_shared_by_free_threads_is_what_the_library_refuses(async_client):
    answer = await ask(async_client, mode="shared", seconds="0")
    assert answer["error"].startswith("WrongThreadError")
    assert "visits" in answer["report"]


async def test_a_free_call_closes_its_threads_database_connection_itself(monkeypatch):
    """Asked of the wrapper, as SQLite in memory stays open anyway. Other tests' threads may end now."""
    closed, used = [], []
    monkeypatch.setattr(
        type(connections["default"]), "close", lambda self: closed.append(threading.get_ident())
    )

    @bridge.free
    def query():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        used.append(threading.get_ident())
        assert used[0] not in closed

    await query()
    assert closed.count(used[0]) == 1
    assert used != [threading.get_ident()]


@pytest.mark.parametrize(
    "query", ["mode=fast", "count=0", "count=9", "count=1.5", "count=x", "seconds=2", "seconds=nan"]
)
async def test_a_parameter_out_of_bounds_is_refused_with_its_bounds(async_client, query):
    answer = await async_client.get(f"/legacy/data?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.split("=")[0])
