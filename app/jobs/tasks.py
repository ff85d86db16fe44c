"""What the workers do. A task may be run again at any moment (its worker was stopped or killed), so that it
begins with a look at its row and ends with `services.succeed`."""

import logging
from functools import wraps

from asgiref.sync import async_to_sync
from billiard.exceptions import SoftTimeLimitExceeded

from config.celery import app
from dashboard.calls import SERVICES, Call, together
from jobs import services
from jobs.models import Job
from lab.work import crunch as keep_busy

logger = logging.getLogger(__name__)

RETRIES = 3
ROUNDS = 3
STEPS = 20


class CancelledError(Exception):
    pass


class SupersededError(Exception):
    """The job is no longer this run's: another one of the same job ended it, or waits for its retry."""


class PassingError(Exception):
    """What may go better the next time."""


def job_task(work):
    """Celery's task around `work(job, text)`: the row's states, retries with backoff, cancelling."""

    @app.task(bind=True, name=f"jobs.{work.__name__}", max_retries=RETRIES)
    @wraps(work)
    def task(self, number, text):
        job = services.begin(number)
        if job is None:
            return
        try:
            result = work(job, text)
        except CancelledError:
            services.finish(number, Job.Status.CANCELLED)
        except SupersededError:
            logger.info("job %s goes on elsewhere", number)
        except PassingError as error:
            if self.request.retries >= RETRIES:
                services.finish(number, Job.Status.FAILED, f"{error}; given up")
                return
            seconds = 2**self.request.retries
            if services.change(number, status=Job.Status.RETRYING, message=f"{error}; again in {seconds} s"):
                raise self.retry(countdown=seconds, exc=error) from error
        except SoftTimeLimitExceeded:
            services.finish(number, Job.Status.FAILED, "took too long")
        except Exception:
            logger.exception("job %s", number)
            services.finish(number, Job.Status.FAILED, "an error of ours; the log has it")
        else:
            services.succeed(number, result | {"text": text})

    return task


def step(job, done, of):
    """Progress, told; and the moment at which a job can be cancelled."""
    changed = services.change(job.pk, [Job.Status.RUNNING], progress=100 * done // of)
    if changed is None:
        raise SupersededError
    if changed.cancel_requested:
        raise CancelledError


@job_task
def fetch(job, text):
    """Waiting: in each round four services are asked at the same time.

    Under `async_to_sync` there is no event loop behind a task: each call makes one, and with it the pooled
    clients, and ends them. One call around all the rounds would pay that once.
    """
    answered = 0
    for done in range(ROUNDS):
        step(job, done, ROUNDS)
        _, results = async_to_sync(together)([Call(service, delay=1, timeout=3) for service in SERVICES])
        answered += sum(result["outcome"] == "ok" for result in results)
    if answered == 0:
        raise PassingError("no service answered")
    return {"answered": answered, "asked": ROUNDS * len(SERVICES)}


@job_task
def crunch(job, text):
    """Computing: the reason why it is not in a web worker. Prefork gives it a process.

    For ten seconds by the clock at most, also where the core is shared: what waits behind it has its turn.
    """
    rounds = 0
    for done in range(STEPS):
        step(job, done, STEPS)
        rounds += keep_busy(0.4, at_most=0.5)["rounds"]
    return {"rounds": rounds}


@job_task
def flaky(job, text):
    step(job, 1, 2)
    if job.attempts < 3:
        raise PassingError(f"failed, as ordered, for the {['first', 'second'][job.attempts - 1]} time")
    return {"attempts": job.attempts}


@job_task
def doomed(job, text):
    step(job, 1, 2)
    raise PassingError("failed, as ordered")


@app.task(name="jobs.refresh")
def refresh():
    """By the clock (CELERY_BEAT_SCHEDULE)."""
    services.refresh()
    services.send_lost()
