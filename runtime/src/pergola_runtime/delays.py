"""Refuse Celery tasks with a delay during which Redis would deliver their message a second time.

A worker takes a message with a countdown or an eta at once and holds it until it is due. Celery's Redis
transport delivers each message again that no worker has acknowledged within the visibility timeout: a task
with a countdown of 190 seconds ran four times at a timeout of 60. Half of the timeout is the limit, which
leaves the other half for the wait for a process and for the task itself.

    from pergola_runtime.delays import refuse_long_delays

    refuse_long_delays()

serving.py (in the processes that serve requests), jobs.py (in Celery's worker and beat) and
pergola_runtime.settings call it.

It applies to all applications of the process and to whatever sends a task: apply_async(), send_task(),
retry(), `celery call` and beat. The later tasks of a chain, a chord or a link are refused when the first one
is sent.
"""

import functools
import logging
from datetime import UTC, datetime

from celery.app.amqp import AMQP
from celery.app.task import Task
from celery.exceptions import Reject
from celery.utils.time import maybe_iso8601, maybe_make_aware

from pergola_runtime.versions import untested

logger = logging.getLogger(__name__)

SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
DEFAULT_TIMEOUT = 3600  # seconds; kombu's


class DelayTooLongError(ValueError):
    pass


def limit(app):
    """Seconds; None where the broker is not Redis."""
    url = app.conf.broker_write_url or app.conf.broker_url or ""
    if isinstance(url, (list, tuple)):
        url = url[0] if url else ""
    if url.partition("://")[0] not in SCHEMES:
        return None
    timeout = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    return float(timeout or DEFAULT_TIMEOUT) / 2


def delay_of(app, countdown, eta):
    """Seconds until a task is due, as its worker will find it."""
    if countdown:
        return float(countdown)
    if not eta:
        return 0
    return (maybe_make_aware(maybe_iso8601(eta), app.conf.timezone) - datetime.now(UTC)).total_seconds()


def later_tasks(found):
    """The signatures within a message's values, or a signature's, whose arguments are the project's own."""
    if isinstance(found, dict):
        if isinstance(found.get("task"), str) and isinstance(found.get("options"), dict):
            yield found
            kwargs = found.get("kwargs") or {}
            found = {
                "options": found["options"],
                "parts": [kwargs.get(name) for name in ("tasks", "header", "body")]
                if found.get("subtask_type")
                else (),
            }
        for value in found.values():
            yield from later_tasks(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from later_tasks(value)


def check(app, name, countdown, eta):
    """Raises DelayTooLongError."""
    most = limit(app)
    if most is not None and (delay := delay_of(app, countdown, eta)) > most:
        raise DelayTooLongError(
            f"task {name}: a delay of {delay:.0f} s is more than {most:g} s, half of visibility_timeout in "
            "CELERY_BROKER_TRANSPORT_OPTIONS (broker_transport_options): Redis would deliver it again before "
            "it is due, and it would run more than once. Keep it in the database and send it when it is due, "
            "or set a longer visibility_timeout"
        )


def check_message(app, name, message):
    headers = message.headers or {}
    if "task" in headers:  # protocol 2; the first has all of it in the body
        check(app, name, None, headers.get("eta"))
        _, _, later = message.body
    else:
        check(app, name, None, message.body.get("eta"))
        later = {key: message.body.get(key) for key in ("callbacks", "errbacks", "chord")}
    for signature in later_tasks(later):
        options = signature["options"]
        check(app, signature["task"], options.get("countdown"), options.get("eta"))


def refuse_long_delays():
    """Patch Celery, in tested versions. A second call changes nothing."""
    if getattr(AMQP, "refuses_long_delays", False):
        return
    if reason := untested("celery"):
        logger.warning("long delays of tasks are not refused: %s", reason)
        return
    AMQP.refuses_long_delays = True
    create_task_sender, retry = AMQP._create_task_sender, Task.retry

    @functools.wraps(create_task_sender)
    def create_checking_sender(self):
        send = create_task_sender(self)

        @functools.wraps(send)
        def send_task_message(producer, name, message, *args, **kwargs):
            check_message(self.app, name, message)
            return send(producer, name, message, *args, **kwargs)

        return send_task_message

    @functools.wraps(retry)
    def retry_or_fail(self, *args, **kwargs):
        try:
            return retry(self, *args, **kwargs)
        except Reject as rejected:
            # (!) Celery drops the message of a task that is rejected, and logs nothing. This way it fails.
            if isinstance(rejected.reason, DelayTooLongError):
                # without Celery's own frames, which would leave no room in the log for the task's own error
                raise rejected.reason.with_traceback(None) from kwargs.get("exc")
            raise

    # not by the signal before_task_publish, which logs what its receivers raise and sends the task
    AMQP._create_task_sender = create_checking_sender
    Task.retry = retry_or_fail
