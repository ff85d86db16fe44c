"""Several services asked by one page, as a client sees it through the whole stack."""

from itertools import pairwise

import pytest


def calls(client, mode):
    answer = client.get("/dashboard/data", params={"mode": mode, "count": 3, "delay": "0.5"}).json()
    assert [call["outcome"] for call in answer["calls"]] == ["ok"] * 3, answer
    return answer["calls"]


def test_calls_that_are_asked_together_run_together(client):
    found = calls(client, "async")
    assert max(call["start"] for call in found) < min(call["end"] for call in found)


def test_calls_that_are_asked_one_after_another_do_not_overlap(client):
    found = calls(client, "sync")
    for earlier, later in pairwise(found):
        assert earlier["end"] <= later["start"]


@pytest.mark.parametrize(
    "query", ["mode=both", "count=0", "count=99", "delay=1000", "delay=a,b", "client=curl"]
)
def test_what_cannot_be_asked_is_refused_by_name(client, query):
    answer = client.get(f"/dashboard/data?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [query.split("=")[0]]
