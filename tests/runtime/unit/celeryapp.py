"""A Celery application: each task counts its runs in Redis, as Celery's own results know only the last."""

import os

import redis
from celery import Celery
from pergola_runtime.logs import follow_jobs, request_id

URL = os.environ["REDIS_URL"]
VISIBILITY = int(os.environ.get("VISIBILITY", "6"))

if not os.environ.get("STOCK"):
    from pergola_runtime.delays import refuse_long_delays

    refuse_long_delays()

follow_jobs()
app = Celery("tests", broker=URL, backend=f"{URL}/1")
app.conf.update(
    broker_transport_options={
        "visibility_timeout": VISIBILITY,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    },
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    beat_schedule={
        "late": {"task": "count", "schedule": 0.5, "args": ["late"], "options": {"countdown": 190}},
        "early": {"task": "count", "schedule": 0.5, "args": ["early"], "options": {"expires": 60}},
    },
)
counts = redis.Redis.from_url(f"{URL}/2")


@app.task(name="count")
def count(key):
    return counts.incr(key)


@app.task(name="remember")
def remember(key):
    counts.rpush(key, request_id.get())


@app.task(name="add")
def add(*values):
    counts.incr("add")


@app.task(name="retry", bind=True, max_retries=3)
def retry(self, key, countdown):
    counts.incr(key)
    try:
        raise RuntimeError("the first attempt fails")
    except RuntimeError as error:
        if self.request.retries:
            return
        raise self.retry(countdown=countdown, exc=error) from error


@app.task(name="backoff", autoretry_for=(RuntimeError,), retry_backoff=190, retry_jitter=False)
def backoff(key):
    counts.incr(key)
    raise RuntimeError("each attempt fails")


@app.task(name="hold", bind=True)
def hold(self, key):
    """Runs until its worker is killed; the second run ends at once."""
    if counts.incr(key) == 1:
        self.app.backend.client.blpop("nothing", timeout=60)
