"""A request sees no other request's context variables, whichever of its code sets them."""

import json

import pytest
from workers import HANDLERS, TESTED_SERVERS, ask, working

PREFIXES = {
    "": [],
    "below-synchronous/": ["synchronous middleware", "synchronous middleware, with the response"],
}
# what a page calls that sets the variable, beyond the middleware
PLACES = {
    "queries": ["view"],
    "sync_queries": ["view"],
    "threads": ["view", "sync_to_async", "nested", "gather", "to_thread", "not thread-sensitive"],
    "sync_threads": ["view", "nested", "sync_to_async"],
    "signals": ["receiver", "asynchronous receiver"],
    "sync_signals": ["receiver", "asynchronous receiver"],
    "stream": ["view", "stream"],
    "sync_stream": ["view", "stream"],
    "background": ["view", "background task"],
    "together": ["view", "view, again"],
    "sync_together": ["view", "view, again"],
}
NUMBER = 6


@pytest.fixture(
    scope="module",
    params=[(server, handler) for server in TESTED_SERVERS for handler in HANDLERS],
    ids="-".join,
)
def seen(request, users, directory):
    """By request: the values that its code saw, before each set the request's own name."""
    with working(request.param[1], directory, server=request.param[0]) as worker:
        with worker.connect() as connection:  # one, so that its requests share all that a connection has
            for prefix in PREFIXES:
                for turn in range(3):
                    for page in PLACES:
                        name = f"{prefix}{page}-{turn}"
                        path = f"/{prefix}{page}?who={name}&group={name}&number=1"
                        status, body, _ = ask(connection, path)
                        assert status == 200, (page, body, worker.log())
        for prefix in PREFIXES:
            for page in PLACES:
                group = f"group={prefix}{page}&number={NUMBER}"
                asked = [f"/{prefix}{page}?who={prefix}{page}-at-once-{n}&{group}" for n in range(NUMBER)]
                assert {status for status, *_ in worker.together(asked)} == {200}, worker.log()
        return json.loads(worker.request("/report")[1])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("page", PLACES)
def test_a_request_sees_only_what_it_set_itself(seen, page, prefix):
    requests = [name for name in seen if name.startswith((f"{prefix}{page}-0", f"{prefix}{page}-at-once"))]
    assert len(requests) == 1 + NUMBER
    for name in [f"{prefix}{page}-{turn}" for turn in range(3)] + requests:
        assert seen[name][0] == ["hybrid middleware", None], name
        assert {value for _, value in seen[name]} <= {None, name}
        places = {place for place, _ in seen[name]}
        assert places >= {"hybrid middleware", *PREFIXES[prefix], *PLACES[page]}


def test_a_view_and_its_stream_see_what_the_middleware_set(seen):
    """Or the variable would be lost on the way, and the test above would prove nothing."""
    for page, place in (("queries", "view"), ("sync_queries", "view"), ("stream", "stream")):
        values = [value for where, value in seen[f"{page}-0"] if where == place]
        assert values
        assert set(values) == {f"{page}-0"}
