"""A task that Redis would deliver twice is refused when it is sent; others run once, on a real worker."""

import contextlib
import importlib
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import redis
from app.servers import ROOT, serving
from celery import Celery, chain, chord, group
from pergola_runtime.delays import DelayTooLongError, check, refuse_long_delays
from pergola_runtime.logs import request_id
from waiting import wait_until

HERE = Path(__file__).parent
VISIBILITY = 6
LONG = 190
REFUSED = "CELERY_BROKER_TRANSPORT_OPTIONS"


@pytest.fixture
def celery(redis_process, monkeypatch):
    """The application, as the test's own process sends tasks."""
    monkeypatch.setenv("REDIS_URL", redis_process.url)
    monkeypatch.syspath_prepend(HERE)
    sys.modules.pop("celeryapp", None)
    module = importlib.import_module("celeryapp")
    yield module
    module.app.close()
    sys.modules.pop("celeryapp")


@contextlib.contextmanager
def process(tmp_path, url, name, *arguments, **environment):
    environment |= {"REDIS_URL": url, "PYTHONPATH": f"{ROOT / 'runtime/src'}:{HERE}"}
    command = ["celery", "-A", "celeryapp", name, "--loglevel", "INFO", *arguments]
    with serving(command, tmp_path / name, cwd=tmp_path, env=environment) as running:
        yield running


@contextlib.contextmanager
def worker(tmp_path, url, **environment):
    with process(tmp_path, url, "worker", "--concurrency", "1", "--without-gossip", **environment) as running:
        running.says(" ready.")
        yield running


def runs(celery, key):
    return int(celery.counts.get(key) or 0)


def wait_for_runs(celery, wanted, what):
    wait_until(lambda: runs(celery, "key") == wanted, what)


def in_seconds(seconds, zone=UTC):
    return datetime.now(zone) + timedelta(seconds=seconds)


def naive(seconds):
    """As Celery takes one: UTC."""
    return in_seconds(seconds).replace(tzinfo=None)


LONG_DELAYS = {
    "countdown": lambda m: m.count.apply_async(["key"], countdown=LONG),
    "just more than half": lambda m: m.count.apply_async(["key"], countdown=VISIBILITY / 2 + 1),
    "aware eta": lambda m: m.count.apply_async(["key"], eta=in_seconds(LONG)),
    "eta of another zone": lambda m: m.count.apply_async(
        ["key"], eta=in_seconds(LONG, timezone(timedelta(hours=9)))
    ),
    "naive eta": lambda m: m.count.apply_async(["key"], eta=naive(LONG)),
    "by name": lambda m: m.app.send_task("count", ["key"], countdown=LONG),
    "eta as text": lambda m: m.app.send_task("count", ["key"], eta=in_seconds(LONG).isoformat()),
    "group": lambda m: group(m.count.s("key"), m.count.s("other")).apply_async(countdown=LONG),
    "first of a chain": lambda m: m.count.si("key").set(countdown=LONG).apply_async(),
    "second of a chain": lambda m: chain(
        m.count.si("key"), m.count.si("other").set(countdown=LONG)
    ).apply_async(),
    "last of a chain, in a group": lambda m: chain(
        m.count.si("key"), m.add.si(), group(m.count.si("a").set(countdown=LONG), m.count.si("b"))
    ).apply_async(),
    "chord's body": lambda m: chord([m.count.si("key")])(m.add.s().set(eta=in_seconds(LONG))),
    "chord's header": lambda m: chord([m.count.si("key").set(countdown=LONG)])(m.add.s()),
    "link": lambda m: m.count.apply_async(["key"], link=m.add.s().set(countdown=LONG)),
    "link_error": lambda m: m.count.apply_async(["key"], link_error=m.add.s().set(countdown=LONG)),
}


@pytest.mark.parametrize("send", LONG_DELAYS.values(), ids=LONG_DELAYS)
def test_a_long_delay_is_refused_and_nothing_is_sent(celery, redis_process, send):
    with pytest.raises(DelayTooLongError, match=REFUSED):
        send(celery)
    assert redis_process.client().llen("celery") == 0


SHORT_DELAYS = {
    "none": lambda m: m.count.apply_async(["key"]),
    "countdown": lambda m: m.count.apply_async(["key"], countdown=VISIBILITY / 2 - 1),
    "aware eta": lambda m: m.count.apply_async(["key"], eta=in_seconds(1)),
    "naive eta": lambda m: m.count.apply_async(["key"], eta=naive(1)),
    "past eta": lambda m: m.count.apply_async(["key"], eta=in_seconds(-LONG)),
    "expires": lambda m: m.count.apply_async(["key"], expires=10 * LONG),
    "chain": lambda m: chain(m.add.si(), m.count.si("key").set(countdown=1)).apply_async(),
    "chord": lambda m: chord([m.add.si(), m.add.si()])(m.count.si("key").set(countdown=1)),
    "retry": lambda m: m.retry.apply_async(["key", 1]),
}


def test_short_delays_run_once(celery, redis_process, tmp_path):
    """Watched for longer than the visibility timeout."""
    with worker(tmp_path, redis_process.url) as running:
        for name, send in SHORT_DELAYS.items():
            celery.counts.delete("key")
            send(celery)
            wanted = 2 if name == "retry" else 1
            wait_for_runs(celery, wanted, f"{name}: {running.log()}")
        celery.counts.delete("key")
        celery.count.apply_async(["key"], countdown=VISIBILITY / 2 - 0.5)
        time.sleep(2 * VISIBILITY)  # in which a second delivery would run
        assert runs(celery, "key") == 1


def test_without_the_refusal_a_long_delay_runs_more_than_once(celery, redis_process, tmp_path):
    """What the refusal is for: this Celery still needs it."""
    arguments = ["call", "count", "--args", '["key"]', "--countdown", str(3 * VISIBILITY)]
    with worker(tmp_path, redis_process.url, STOCK="yes") as running:
        assert call(redis_process.url, *arguments, STOCK="yes").returncode == 0
        wait_until(lambda: runs(celery, "key") > 1, running.log)


def call(url, *arguments, app="celeryapp", **environment):
    environment = (
        os.environ
        | environment
        | {
            "REDIS_URL": url,
            "PYTHONPATH": f"{ROOT / 'runtime/src'}:{HERE}",
        }
    )
    command = [sys.executable, "-m", "celery", "-A", app, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_celery_call_says_which_setting_refuses(celery, redis_process):
    done = call(redis_process.url, "call", "count", "--args", '["key"]', "--countdown", str(LONG))
    assert done.returncode != 0
    assert REFUSED in done.stderr
    assert "190 s" in done.stderr
    assert redis_process.client().llen("celery") == 0


def test_an_application_that_is_loaded_by_jobs_gets_it(celery, redis_process):
    """As worker and beat load it, with no line of Pergola's in the project."""
    arguments = ["call", "count", "--args", '["key"]', "--countdown", str(LONG)]
    stock = {"STOCK": "yes", "PERGOLA_CELERY": "celeryapp:app"}
    assert call(redis_process.url, *arguments, **stock).returncode == 0
    assert redis_process.client().llen("celery") == 1
    done = call(redis_process.url, *arguments, app="pergola_runtime.jobs:app", **stock)
    assert done.returncode != 0
    assert REFUSED in done.stderr
    assert redis_process.client().llen("celery") == 1


OWN_FORMAT = """
from celeryapp import app
app.conf.worker_log_format = app.conf.worker_task_log_format = "own: %(message)s"

@app.task(name="fail")
def fail(text):
    raise ValueError(text)
"""


def test_a_workers_log_line_has_a_length_that_no_client_chooses(celery, redis_process, tmp_path):
    (tmp_path / "own_format.py").write_text(OWN_FORMAT)
    environment = {
        "PERGOLA_CELERY": "own_format:app",
        "PYTHONPATH": f"{ROOT / 'runtime/src'}:{HERE}:{tmp_path}",
        "REDIS_URL": redis_process.url,
    }
    command = [
        "celery",
        "-A",
        "pergola_runtime.jobs:app",
        "worker",
        "--loglevel",
        "INFO",
        "--concurrency",
        "1",
    ]
    with serving(command, tmp_path / "worker", cwd=tmp_path, env=environment) as running:
        running.says(" ready.")
        before = len(running.log())
        celery.app.send_task("fail", ["x" * 30_000])
        celery.count.delay("key")
        wait_for_runs(celery, 1, "the worker to go on")
        running.says("own: Task count")
        assert "xxx" in running.log()
        assert len(running.log()) - before < 4000


@pytest.mark.parametrize("name", ["retry", "default", "backoff"])
def test_a_task_whose_retry_is_refused_fails_and_says_why(celery, redis_process, tmp_path, name):
    send = {
        "retry": lambda: celery.retry.delay("key", LONG),
        "default": lambda: celery.retry.delay("key", None),  # default_retry_delay is 180 s
        "backoff": lambda: celery.backoff.delay("key"),
    }[name]
    with worker(tmp_path, redis_process.url) as running:
        result = send()
        with pytest.raises(ValueError, match=REFUSED):
            result.get(timeout=60)
        assert result.state == "FAILURE"
        running.says("DelayTooLongError")
        running.says("attempt")  # the task's own error, of which it is the cause
        wait_until(lambda: redis_process.client().hlen("unacked") == 0, "the message to be acknowledged")
    assert runs(celery, "key") == 1


def test_beat_logs_the_entry_that_is_refused_and_sends_the_others(celery, redis_process, tmp_path):
    with process(tmp_path, redis_process.url, "beat") as running:
        running.says(REFUSED)
        wait_until(lambda: redis_process.client().llen("celery") > 1, running.log)
    assert "Couldn't apply scheduled task late" in running.log()


@pytest.mark.parametrize("delayed", [False, True], ids=["running", "held until it is due"])
def test_a_killed_workers_task_runs_again_after_the_visibility_timeout(
    celery, redis_process, tmp_path, delayed, capsys
):
    key = "key"
    with worker(tmp_path, redis_process.url) as running:
        if delayed:
            celery.count.apply_async([key], countdown=VISIBILITY / 2)
            wait_until(lambda: redis_process.client().hlen("unacked") == 1, "the worker to take it")
        else:
            celery.hold.delay(key)
            wait_until(lambda: runs(celery, key) == 1, running.log)
        before = runs(celery, key)
    killed = time.monotonic()  # serving() kills it, with its processes
    with worker(tmp_path, redis_process.url) as running:
        wait_until(lambda: runs(celery, key) == before + 1, running.log)
        seconds = time.monotonic() - killed
        with capsys.disabled():
            print(f"\n  ran again {seconds:.1f} s after the kill, visibility timeout {VISIBILITY} s", end="")
        assert seconds < 10 * VISIBILITY
        wait_until(lambda: redis_process.client().hlen("unacked") == 0, "the message to be acknowledged")
    assert runs(celery, key) == before + 1


@pytest.mark.parametrize(
    ("broker", "options", "most"),
    [
        ("redis://localhost/1", {}, 1800),
        ("rediss://localhost/1", {"visibility_timeout": 60}, 30),
        ("redis+socket:///run/redis.sock", {"visibility_timeout": 60}, 30),
        ("sentinel://localhost", {"visibility_timeout": 100}, 50),
        ("amqp://localhost", {"visibility_timeout": 60}, None),
        ("memory://localhost", {}, None),
    ],
)
def test_the_limit_is_half_of_the_visibility_timeout_of_redis(broker, options, most):
    app = Celery("limits", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = options
    check(app, "task", most or 10**6, None)
    if most:
        with pytest.raises(DelayTooLongError, match=f"more than {most} s"):
            check(app, "task", most + 1, None)


def test_the_patch_is_applied_once():
    from celery.app.amqp import AMQP

    refuse_long_delays()
    first = AMQP._create_task_sender
    refuse_long_delays()
    assert AMQP._create_task_sender is first


def test_an_application_with_the_settings_overlay_gets_it(redis_process, tmp_path):
    """Whatever its Celery module does: here by `celery call`, with no line of Pergola's in the project."""
    (tmp_path / "shop.py").write_text(
        "SECRET_KEY = 'x'\nCELERY_BROKER_TRANSPORT_OPTIONS = {'visibility_timeout': 60}\n"
    )
    (tmp_path / "jobs.py").write_text(
        "from celery import Celery\napp = Celery()\n"
        "app.config_from_object('django.conf:settings', namespace='CELERY')\n"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'runtime/src'}:{tmp_path}",
        "DJANGO_SETTINGS_MODULE": "pergola_runtime.settings",
        "APP_SETTINGS_MODULE": "shop",
        "SECRET_KEY": "x",
        "ALLOWED_HOSTS": "localhost",
        "DATABASE_URL": "postgresql://a@localhost/a",
        "DATABASE_DIRECT_URL": "postgresql://a@localhost/a",
        "REDIS_URL": redis_process.url,
        "STATIC_ROOT": str(tmp_path),
    }
    command = [sys.executable, "-m", "celery", "-A", "jobs:app", "call", "task", "--countdown", "190"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert REFUSED in done.stderr
    with redis.Redis(port=redis_process.port, db=1) as client:
        assert client.llen("celery") == 0


def test_a_task_has_the_id_of_the_request_that_sent_it(tmp_path, celery, redis_process):
    """On one process, one after another: an id does not stay for the next task."""
    with worker(tmp_path, redis_process.url) as running:
        for sent in ("5ca1ab1e", None, "decade"):
            token = request_id.set(sent) if sent else None
            celery.remember.delay("ids")
            if token:
                request_id.reset(token)
        wait_until(lambda: celery.counts.llen("ids") == 3, "three tasks to run")
        for sent in ("5ca1ab1e", "-", "decade"):
            running.says(f"INFO celery.app.trace [{sent}]: Task remember")
    assert celery.counts.lrange("ids", 0, -1) == [b"5ca1ab1e", b"-", b"decade"]
