import asyncio
import json
import re
import uuid

import pytest
from asgi_scope import http_scope
from config.asgi import application
from config.celery import app
from django.core.signing import get_cookie_signer
from django.db import connections
from django.utils import timezone
from jobs import services, stream
from jobs.models import Job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("collected")]
OWNER = "visitor:somebody"


@pytest.fixture(autouse=True)
def without_redis(monkeypatch, settings):
    """Of the pushes; the queue is where nobody answers, unless a test is `eager`."""
    monkeypatch.setattr("jobs.push.client", None)
    settings.REDIS_URL = ""


@pytest.fixture
def eager():
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def form(**changed):
    return {"kind": "flaky", "text": "포도", "key": uuid.uuid4()} | changed


def cookie(visitor="somebody"):
    return get_cookie_signer(salt="jobs" + "jobs").sign(visitor)


@pytest.fixture
def job():
    return Job.objects.create(
        owner=OWNER, key=uuid.uuid4(), kind="flaky", text="포도", updated_at=timezone.now()
    )


@pytest.fixture
def visitor(client):
    client.cookies["jobs"] = cookie()
    return client


def test_the_page_orders_a_job_and_shows_it_to_its_visitor_alone(client, eager, django_user_model):
    page = client.get("/jobs/").content.decode()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
    answer = client.post("/jobs/start", form())
    assert (answer.status_code, answer.url) == (302, "/jobs/")
    assert answer.cookies["jobs"]["httponly"]
    assert answer.cookies["jobs"]["secure"]
    (job,) = Job.objects.all()
    page = client.get("/jobs/").content.decode()
    assert f"/jobs/{job.pk}" in page
    assert "포도" in page
    state = client.get(f"/jobs/{job.pk}").json()
    assert (state["status"], state["effects"], state["result"]["text"]) == ("done", 1, "포도")
    client.cookies.clear()
    client.force_login(django_user_model.objects.create_user("mina"))
    assert f"/jobs/{job.pk}" not in client.get("/jobs/").content.decode()
    client.post("/jobs/start", form())
    assert Job.objects.first().owner.startswith("user:")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sleep"},
        {"text": ""},
        {"text": "x" * 101},
        {"text": "a\0b"},
        {"key": "1"},
        {"key": ""},
    ],
)
def test_an_order_that_cannot_be_is_refused_by_name(client, wrong):
    answer = client.post("/jobs/start", form(**wrong))
    assert answer.status_code == 400
    assert f"{next(iter(wrong))}: " in answer.content.decode()
    assert not Job.objects.exists()


def test_a_queue_that_is_away_is_told_and_the_job_kept(client):
    answer = client.post("/jobs/start", form())
    assert answer.status_code == 503
    page = answer.content.decode()
    (job,) = Job.objects.all()
    assert "Your job is kept" in page
    assert f"/jobs/{job.pk}" in page
    assert (job.status, job.sent_at) == ("waiting", None)
    assert client.get(f"/jobs/{job.pk}").status_code == 200


def test_too_many_orders_are_429(visitor, job, monkeypatch):
    monkeypatch.setattr(services, "MOST_UNFINISHED", 1)
    assert visitor.post("/jobs/start", form()).status_code == 429


def test_cancelling_ends_a_waiting_job(visitor, job):
    assert visitor.post(f"/jobs/{job.pk}/cancel").status_code == 302
    assert visitor.get(f"/jobs/{job.pk}").json()["status"] == "cancelled"


def test_a_form_from_elsewhere_is_refused(visitor, job):
    visitor.handler.enforce_csrf_checks = True
    assert visitor.post("/jobs/start", form()).status_code == 403
    assert visitor.post(f"/jobs/{job.pk}/cancel").status_code == 403
    job.refresh_from_db()
    assert job.status == "waiting"


@pytest.mark.parametrize(
    "value",
    [None, cookie("somebody else"), cookie()[:-1], "somebody", "\0"],
    ids=["none", "another's", "forged", "unsigned", "a zero byte"],  # what is signed holds the time
)
def test_somebody_elses_job_is_as_one_that_there_never_was(client, job, value):
    # the header itself: http.cookies, which the client's jar is made of, refuses a zero byte
    headers = {} if value is None else {"cookie": f"jobs={value}"}
    for number in (job.pk, uuid.uuid4()):
        assert client.get(f"/jobs/{number}", headers=headers).status_code == 404
        assert client.get(f"/jobs/{number}/events", headers=headers).status_code == 404
        assert client.post(f"/jobs/{number}/cancel", headers=headers).status_code == 404
    assert client.get(f"/jobs/{job.pk}", headers={"cookie": f"jobs={cookie()}"}).status_code == 200


@pytest.mark.parametrize("path", ["/jobs/1", "/jobs/x/events", "/jobs/start"])
def test_what_is_no_job_is_no_page(client, path):
    assert client.get(path).status_code == (405 if path == "/jobs/start" else 404)


class Stream:
    """An EventSource that reads what the application sends, and may go away."""

    def __init__(self, job, **headers):
        self.sent = asyncio.Queue()
        self.gone = asyncio.Event()
        headers = {"host": "testserver", "x_forwarded_proto": "https", "cookie": f"jobs={cookie()}"} | headers
        scope = http_scope(f"/jobs/{job.pk}/events", **headers)
        self.asked = False
        self.task = asyncio.create_task(application(scope, self.receive, self.sent.put))

    async def receive(self):
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def read(self):
        async with asyncio.timeout(20):
            return await self.sent.get()

    async def rest(self):
        body = b""
        while (message := await self.read())["type"] == "http.response.start" or message.get("more_body"):
            body += message.get("body", b"")
        return body.decode()

    async def leave(self):
        self.gone.set()
        async with asyncio.timeout(20):
            await asyncio.gather(self.task, return_exceptions=True)


def states(text):
    return [json.loads(data) for data in re.findall(r"^data: (.*)$", text, re.M)]


async def test_a_stream_tells_what_changes_until_the_end(job):
    watcher = Stream(job)
    head = await watcher.read()
    headers = {name.lower(): value for name, value in head["headers"]}
    assert headers[b"content-type"] == b"text/event-stream"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-accel-buffering"] == b"no"
    assert (await watcher.read())["body"] == b"retry: 1000\n\n"
    assert b"id: 1\n" in (await watcher.read())["body"]
    await asyncio.to_thread(services.cancel, job)
    (state,) = states(await watcher.rest())
    assert (state["status"], state["version"]) == ("cancelled", 2)
    await watcher.leave()
    assert stream.streams == 0


@pytest.mark.parametrize(("seen", "told"), [("0", [3]), ("2", [3])])
async def test_who_comes_back_gets_what_was_missed(job, seen, told):
    await Job.objects.aupdate(status="done", version=3)
    watcher = Stream(job, last_event_id=seen)
    assert [state["version"] for state in states(await watcher.rest())] == told
    await watcher.leave()


@pytest.mark.parametrize(("seen", "status"), [("3", 204), ("-1", 400), ("x", 400), ("1" * 10, 400)])
async def test_who_has_seen_the_end_need_not_come_again(job, seen, status):
    await Job.objects.aupdate(status="done", version=3)
    watcher = Stream(job, last_event_id=seen)
    assert (await watcher.read())["status"] == status
    await watcher.leave()


async def test_a_client_that_goes_ends_its_stream(job):
    watcher = Stream(job)
    for _ in range(3):
        await watcher.read()
    assert stream.streams == 1
    await watcher.leave()
    assert stream.streams == 0


async def test_a_stream_ends_by_itself_before_a_stopping_worker_cuts_it(job, monkeypatch):
    monkeypatch.setattr(stream, "LIFETIME", 0)
    watcher = Stream(job)
    assert [state["status"] for state in states(await watcher.rest())] == ["waiting"]
    await watcher.leave()


async def test_streams_are_bounded(job, monkeypatch):
    monkeypatch.setattr(stream, "MOST_STREAMS", 0)
    watcher = Stream(job)
    assert (await watcher.read())["status"] == 503
    await watcher.leave()


async def test_the_connection_is_given_back_before_the_first_event(job, monkeypatch):
    """Asked of the wrapper: SQLite in memory stays open whatever one says. With PostgreSQL: tests/infra."""
    closed = []
    wrapper = type(connections["default"])
    monkeypatch.setattr(wrapper, "close", lambda self: closed.append(1))
    look = []
    execute = wrapper.create_cursor
    monkeypatch.setattr(
        wrapper, "create_cursor", lambda *args, **kwargs: look.append(len(closed)) or execute(*args, **kwargs)
    )
    watcher = Stream(job)
    for _ in range(3):
        message = await watcher.read()
    assert b"id: 1\n" in message["body"]
    # nothing was asked after the last time that it was given back
    assert look
    assert len(closed) > look[-1]
    await watcher.leave()
