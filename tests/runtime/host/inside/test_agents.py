"""An agent that reports what an application does reports the same under Django's handler and the runtime's.

A server runs for each agent and handler, and both get the same requests. The records that the
agent sends, by its own protocol, are received here and compared as multisets, without times, ids and order.
"""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from collector import collecting
from reports import normalised
from workers import HANDLERS, TESTED_SERVERS, working

AGENTS = ("sentry", "opentelemetry", "elastic", "newrelic")
BOUNDARY = "x"
UPLOAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--x--\r\n'
ALONE = [
    "plain", "sync_plain", "queries", "sync_queries", "cursors", "sync_cursors", "threads", "sync_threads",
    "missing", "nowhere", "fails", "sync_fails", "logs", "sync_logs", "stream", "sync_stream", "stream_fails",
    "page", "sync_page", "cached", "signals", "sync_signals", "background",
]  # fmt: skip


def send_requests(worker):
    """Pages one after the other, then users at the same time, then an anonymous error."""
    for prefix in ("/", "/below-synchronous/"):
        for name in ALONE:
            worker.request(prefix + name)
        worker.request(f"{prefix}plain", "HEAD")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        worker.request(f"{prefix}form", "POST", b"a=1&b=2", form)
        upload = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        worker.request(f"{prefix}form", "POST", UPLOAD, upload)
        for name in ("user1", "user2"):
            *_, cookie = worker.request(f"{prefix}login?name={name}")
            for view in ("fails_for_user", "sync_fails_for_user"):
                worker.request(prefix + view, headers={"Cookie": cookie})
        for view in ("together", "sync_together"):
            group = f"group={view}{prefix[1:-1]}&number=4"
            worker.together([f"{prefix}{view}?{group}&who=who{n}{'&fails=1' * (n % 2)}" for n in range(4)])
        for view in ("anonymous", "sync_anonymous"):
            worker.request(prefix + view)


def sent(agent, handler, server, directory):
    """The records that the agent sends of these requests."""
    with collecting(agent) as collector, working(handler, directory, agent, collector.url, server) as worker:
        send_requests(worker)
        assert worker.request("/flush")[1] == b"sent", worker.log()
        assert not collector.errors
        return collector.records


@pytest.fixture(scope="module", params=AGENTS)
def agent(request):
    return request.param


@pytest.fixture(scope="module", params=TESTED_SERVERS)
def http_server(request):
    return request.param


@pytest.fixture(scope="module")
def records(agent, http_server, users, directory):
    """What the agent sent under each handler."""
    with ThreadPoolExecutor(len(HANDLERS)) as pool:
        found = pool.map(lambda handler: sent(agent, handler, http_server, directory), HANDLERS)
        return dict(zip(HANDLERS, found, strict=True))


@pytest.fixture(scope="module")
def reports(agent, records):
    return {handler: normalised(agent, json.loads(json.dumps(found))) for handler, found in records.items()}


def test_agents_report_the_same_under_both_handlers(agent, reports):
    django, lean = (Counter(reports[handler]) for handler in HANDLERS)
    differ = [f"django {one}" for one in django - lean] + [f"lean {one}" for one in lean - django]
    assert not differ, "\n".join(one[:2000] for one in sorted(differ)[:20])


# at least so many, or a page or half of the requests was not reported
EXPECTED = {
    "sentry": {"event": 33, "transaction": 82},
    "opentelemetry": {"metric": 80, "span": 590},
    "elastic": {"error": 29, "span": 250, "transaction": 84},
    "newrelic": {
        "analytic_event_data": 84, "custom_event_data": 30, "error": 20, "error_event_data": 26, "log": 30,
        "metric": 100, "span": 1000,
    },
}  # fmt: skip


@pytest.mark.parametrize("handler", HANDLERS)
def test_agents_report_records_of_every_kind(agent, reports, handler):
    """At least these, so that two empty reports are not equal."""
    found = Counter(one.partition(" ")[0] for one in reports[handler])
    assert {kind: found[kind] for kind in EXPECTED[agent] if found[kind] < EXPECTED[agent][kind]} == {}
    for page in ("plain", "sync_queries", "stream", "fails", "background", "below-synchronous/page"):
        assert any(f"/{page}" in one for one in reports[handler]), page


# what says whose record it is
USER = {
    "sentry": '"user": {"id": "%s", "username": "%s"}',
    "opentelemetry": '"enduser.id": {"stringValue": "%s"}',
    "elastic": '"tags": {"who": "%s"}',
    "newrelic": '"enduser.id": "%s"',
}
NAMES = re.compile(r"\b(?:who|user)\d")


@pytest.mark.parametrize("handler", HANDLERS)
def test_no_record_carries_what_another_request_set(agent, reports, handler):
    for one in reports[handler]:
        assert len(set(NAMES.findall(one))) <= 1, one
    for number in range(4):
        name = f"who{number}"
        own = [one for one in reports[handler] if USER[agent].replace("%s", name) in one]
        assert len(own) >= 4, name  # by a `def` and an `async def` view, with and without the middleware
    for name in ("who1", "who3"):
        raised = [one for one in reports[handler] if f"raised for {name}" in one]
        assert len(raised) >= 4, name
        for one in raised:
            assert set(NAMES.findall(one)) == {name}, one


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_anonymous_error_carries_no_user(agent, reports, handler):
    anonymous = [one for one in reports[handler] if "/anonymous" in one or "/sync_anonymous" in one]
    assert len(anonymous) >= 4
    for one in anonymous:
        assert not NAMES.search(one), one


@pytest.mark.parametrize("handler", HANDLERS)
def test_sentry_events_carry_breadcrumbs_of_their_own_request_alone(records, agent, handler):
    if agent != "sentry":
        return
    events = [record for kind, record in records[handler] if kind == "event"]
    anonymous = [one for one in events if one.get("request", {}).get("url", "").endswith("anonymous")]
    assert len(anonymous) == 4
    for event in anonymous:
        assert not event.get("user"), event
        assert "who" not in event.get("tags", {})
        connect, query = [one["message"] for one in event["breadcrumbs"]["values"]]
        assert (connect, query[:6]) == ("connect", "SELECT")
    tagged = [one for one in events if one.get("tags", {}).get("who", "").startswith("who")]
    assert len(tagged) == 8
    for event in tagged:
        who = event["tags"]["who"]
        assert event["user"] == {"id": who, "username": who}
        own = [one["message"] for one in event["breadcrumbs"]["values"] if one.get("category") != "query"]
        assert own == [f"breadcrumb of {who}", f"second breadcrumb of {who}"]
