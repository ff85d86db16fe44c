import pytest
from lab import hops


async def count(*middleware, view="async"):
    counted = await hops.count(
        [f"lab.middleware.{name}" for name in middleware], f"/lab/{view}/", "testserver"
    )
    assert counted["status"] == 200, counted
    return counted


async def test_without_middleware_a_sync_view_costs_one_hop_more_than_an_async_one():
    ours, theirs = await count(), await count(view="sync")
    assert theirs["count"] == ours["count"] + 1
    assert not ours["held"]


@pytest.mark.parametrize("view", ["async", "sync"])
async def test_a_middleware_in_sync_and_async_adds_no_hop(view):
    assert (await count("both", view=view))["count"] == (await count(view=view))["count"]


async def test_each_hook_of_a_middleware_mixin_adds_one():
    hooks = [hop["what"] for hop in (await count("Mixin"))["hops"] if hop["what"].startswith("Mixin")]
    assert hooks == ["Mixin.process_request", "Mixin.process_response"]


async def test_a_sync_only_middleware_sends_an_async_view_to_a_thread_and_back_and_holds_the_thread():
    before, after = await count(), await count("sync_only")
    assert after["count"] == before["count"] + 2
    assert [hop["to"] for hop in after["hops"] if hop not in before["hops"]] == ["thread", "event loop"]
    assert after["held"]


async def test_what_stands_outside_of_a_sync_only_middleware_becomes_sync_as_well():
    """Its two hooks hop no more: they run in the thread that the sync-only one has taken anyway."""
    assert (await count("Mixin", "sync_only"))["count"] == (await count("sync_only"))["count"]
    assert (await count("sync_only", "Mixin"))["count"] == (await count("sync_only"))["count"] + 2


async def test_the_page_counts_this_sites_own_stack(async_client):
    answer = await async_client.get("/lab/hops/", {"format": "json"})
    stacks = {row["title"]: row for row in answer.json()["stacks"]}
    assert list(stacks) == list(hops.STACKS)
    for row in stacks.values():
        assert row["async"]["status"] == row["sync"]["status"] == 200
    assert stacks["this site's, a sync-only one outside"]["async"]["held"]
