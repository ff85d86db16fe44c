"""A message may come late, twice or never: what the rows make of it. Where the worker's tests are: infra."""

import uuid
from datetime import timedelta

import pytest
from config.celery import app
from config.redis_urls import for_celery
from django.db import transaction
from django.utils import timezone
from jobs import services, tasks
from jobs.models import Effect, Job, Statistic

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "포도나무 아래서"


@pytest.fixture(autouse=True)
def without_redis(monkeypatch):
    monkeypatch.setattr("jobs.push.client", None)


@pytest.fixture
def eager():
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


@pytest.fixture
def unsent(monkeypatch):
    """Jobs whose messages nobody takes; the list of those that were sent."""
    sent = []
    monkeypatch.setattr(services, "send", sent.append)
    return sent


def order(kind="flaky", owner="visitor:a", key=None):
    job = services.create(owner, kind, TEXT, key or uuid.uuid4())
    job.refresh_from_db()
    return job


@pytest.mark.usefixtures("eager")
def test_work_that_fails_for_the_moment_is_tried_again():
    job = order("flaky")
    assert (job.status, job.attempts, job.progress) == ("done", 3, 100)
    assert job.result == {"attempts": 3, "text": TEXT}
    assert job.effects.count() == 1


@pytest.mark.usefixtures("eager")
def test_work_that_fails_for_good_ends_and_leaves_no_effect():
    job = order("doomed")
    assert (job.status, job.attempts) == ("failed", tasks.RETRIES + 1)
    assert job.message == "failed, as ordered; given up"
    assert not Effect.objects.exists()


@pytest.mark.usefixtures("eager")
def test_a_service_that_nobody_reaches_is_asked_again_and_then_given_up():
    job = order("fetch")
    assert (job.status, job.message) == ("failed", "no service answered; given up")


@pytest.mark.usefixtures("eager")
def test_an_order_that_comes_twice_is_one_job_with_one_effect():
    key = uuid.uuid4()
    assert order(key=key) == order(key=key)
    assert Effect.objects.count() == 1
    assert order(key=key, owner="visitor:b").effects.count() == 1


@pytest.mark.usefixtures("eager")
def test_a_message_that_comes_twice_finds_the_job_done():
    job = order()
    app.tasks["jobs.flaky"].apply([str(job.pk), job.text])
    assert Job.objects.get().version == job.version
    assert Effect.objects.count() == 1


def test_of_two_runs_of_a_job_one_has_the_effect(unsent):
    job = order()
    services.begin(job.pk)
    services.begin(job.pk)
    services.succeed(job.pk, {})
    services.succeed(job.pk, {})
    assert Effect.objects.count() == 1


def test_the_mark_and_the_effect_are_both_or_neither(unsent, monkeypatch):
    job = order()
    services.begin(job.pk)
    with monkeypatch.context() as patched:
        patched.setattr(Effect._meta.get_field("job"), "get_db_prep_save", None)
        with pytest.raises(TypeError):
            services.succeed(job.pk, {})
    assert Job.objects.get().status == "running"
    services.succeed(job.pk, {})
    assert Effect.objects.count() == 1


def test_a_message_goes_out_once_the_row_is_committed(unsent):
    with transaction.atomic():
        services.create("visitor:a", "flaky", TEXT, uuid.uuid4())
        assert unsent == []
        transaction.set_rollback(True)
    assert (unsent, Job.objects.count()) == ([], 0)
    job = order()
    assert unsent == [job]


def test_unfinished_jobs_are_bounded_for_a_visitor_and_for_all(unsent, monkeypatch):
    jobs = [order() for _ in range(services.MOST_UNFINISHED)]
    with pytest.raises(services.TooManyError):
        order()
    services.cancel(jobs[0])
    order()
    monkeypatch.setattr(services, "MOST_UNFINISHED_IN_ALL", services.MOST_UNFINISHED)
    with pytest.raises(services.TooManyError):
        order(owner="visitor:b")


@pytest.mark.parametrize(
    ("bound", "owner"), [("MOST_A_MINUTE", "visitor:a"), ("MOST_A_MINUTE_IN_ALL", "visitor:b")]
)
def test_orders_are_bounded_in_a_minute_also_where_each_is_cancelled(unsent, monkeypatch, bound, owner):
    monkeypatch.setattr(services, bound, 4)
    jobs = [order() for _ in range(3)]
    for job in jobs:
        services.cancel(job)
    last = order()
    services.cancel(last)
    with pytest.raises(services.TooManyError, match="within a minute"):
        order(owner=owner)
    Job.objects.filter(pk=last.pk).update(created_at=timezone.now() - timedelta(seconds=61))
    order(owner=owner)


def test_a_waiting_job_is_cancelled_at_once_and_its_message_does_nothing(unsent):
    job = order("crunch")
    services.cancel(job)
    app.tasks["jobs.crunch"].apply([str(job.pk), job.text])
    job.refresh_from_db()
    assert (job.status, job.attempts) == ("cancelled", 0)


def test_a_running_job_is_cancelled_at_its_next_step(unsent, monkeypatch):
    job = order("crunch")
    rounds = []

    def keep_busy(*_, **__):
        rounds.append(1)
        services.cancel(job)
        return {"rounds": 1}

    monkeypatch.setattr(tasks, "keep_busy", keep_busy)
    app.tasks["jobs.crunch"].apply([str(job.pk), job.text])
    job.refresh_from_db()
    assert (job.status, len(rounds)) == ("cancelled", 1)
    assert not job.effects.exists()


def test_a_run_that_was_superseded_ends_and_cancels_nothing(unsent, monkeypatch):
    job = order("crunch")
    rounds = []

    def keep_busy(*_, **__):
        rounds.append(1)
        services.change(job.pk, status=Job.Status.RETRYING)  # by another run of the same job
        return {"rounds": 1}

    monkeypatch.setattr(tasks, "keep_busy", keep_busy)
    app.tasks["jobs.crunch"].apply([str(job.pk), job.text])
    job.refresh_from_db()
    assert (job.status, job.cancel_requested, len(rounds)) == ("retrying", False, 1)


def test_a_job_that_computes_is_bounded_by_the_clock(unsent, monkeypatch):
    asked = []
    monkeypatch.setattr(tasks, "keep_busy", lambda _, at_most: asked.append(at_most) or {"rounds": 1})
    app.tasks["jobs.crunch"].apply([str(order("crunch").pk), TEXT])
    assert sum(asked) == pytest.approx(10)


def test_cancelling_asks_nothing_of_the_queue(unsent, monkeypatch):
    """Which may be away, and the answer with it."""
    monkeypatch.setattr(type(app), "control", None)
    job = order()
    services.cancel(job)
    assert Job.objects.get().status == "cancelled"


def test_work_that_kills_its_workers_is_not_begun_for_ever(unsent):
    job = order()
    runs = [services.begin(job.pk) for _ in range(services.MOST_ATTEMPTS + 1)]
    assert runs[-2]
    assert runs[-1] is None
    job.refresh_from_db()
    assert (job.status, job.message) == ("failed", "given up after 6 attempts")


def test_the_clock_sends_what_the_queue_never_got_or_lost(unsent):
    now = timezone.now()
    kept = order(), order(), order(), order(owner="visitor:b")
    del unsent[:]
    Job.objects.filter(pk=kept[0].pk).update(created_at=now - 2 * services.UNSENT)
    Job.objects.filter(pk=kept[1].pk).update(sent_at=now, updated_at=now - 2 * services.LOST)
    Job.objects.filter(pk=kept[2].pk).update(sent_at=now)
    # a worker was quicker than the note that it was sent
    Job.objects.filter(pk=kept[3].pk).update(status="running", created_at=now - 2 * services.UNSENT)
    services.send_lost()
    assert set(unsent) == set(kept[:2])


def test_the_clock_counts_and_throws_old_jobs_away(unsent):
    order()
    Job.objects.filter(pk=order().pk).update(created_at=timezone.now() - services.KEPT - timedelta(hours=1))
    services.refresh()
    services.refresh()
    statistic = Statistic.objects.get()
    assert (statistic.figures, statistic.refreshes) == ({"waiting": 1}, 2)


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("redis://app:p%40ss@127.0.0.1:6379/0", "redis://app:p%40ss@127.0.0.1:6379/1"),
        ("rediss://cache.example.org", "rediss://cache.example.org/1"),
        ("unix:///run/redis.sock?db=0", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("", "memory://localhost"),
    ],
)
def test_the_broker_has_a_redis_database_that_the_caches_clear_leaves_alone(url, broker):
    assert for_celery(url) == broker
