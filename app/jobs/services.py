"""What can happen to a job. Sync, as each is a short transaction; views call them through sync_to_async.

A message of the queue may come late, twice or never. So each change asks the row whether it may be made, the
effect is written in the transaction that marks the job as done, and the clock sends again what was lost.
"""

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from config.celery import app
from jobs import push
from jobs.models import Effect, Job, Statistic

logger = logging.getLogger(__name__)

MOST_UNFINISHED = 3  # of one visitor
MOST_UNFINISHED_IN_ALL = 200
# (!) Finished ones count here: a job that is cancelled gives its place back, but its message stays in Redis,
# and a visitor without a cookie is somebody else each time.
MOST_A_MINUTE = 10
MOST_A_MINUTE_IN_ALL = 120
MOST_ATTEMPTS = 6  # also those that a killed worker began: work that kills its worker is not tried for ever
UNSENT = timedelta(seconds=5)  # a row without a message: Redis was away, or its process was killed in between
LOST = timedelta(minutes=5)  # more than the broker takes to deliver again (CELERY_BROKER_TRANSPORT_OPTIONS)
KEPT = timedelta(days=1)


class TooManyError(Exception):
    pass


class NotSentError(Exception):
    """The job is kept, and sent as soon as the queue answers."""


def create(owner, kind, text, key):
    """The job of this order, which is made and sent once however often it is ordered."""
    with transaction.atomic():
        # whoever creates waits here for the others, so that nobody counts before another's row is in
        Statistic.objects.get_or_create(pk=1)
        Statistic.objects.select_for_update().get(pk=1)
        if job := Job.objects.filter(owner=owner, key=key).first():
            return job
        unfinished = Job.objects.filter(status__in=Job.UNFINISHED)
        if unfinished.filter(owner=owner).count() >= MOST_UNFINISHED:
            raise TooManyError(f"You have {MOST_UNFINISHED} unfinished jobs; wait for one or cancel it.")
        if unfinished.count() >= MOST_UNFINISHED_IN_ALL:
            raise TooManyError("There are too many unfinished jobs; try again in a minute.")
        recent = Job.objects.filter(created_at__gt=timezone.now() - timedelta(minutes=1))
        if recent.filter(owner=owner).count() >= MOST_A_MINUTE:
            raise TooManyError(f"You ordered {MOST_A_MINUTE} jobs within a minute; try again in a minute.")
        if recent.count() >= MOST_A_MINUTE_IN_ALL:
            raise TooManyError("Too many jobs were ordered within a minute; try again in a minute.")
        job = Job.objects.create(owner=owner, key=key, kind=kind, text=text, updated_at=timezone.now())
        # (!) not before the commit: a worker may be quicker, and would find no row
        transaction.on_commit(lambda: send(job))
    return job


def send(job):
    """A failure leaves `sent_at` empty, for the clock to find."""
    try:
        task = app.tasks[f"jobs.{job.kind}"]
        # the text goes along in the message; everything else is in the row
        task.apply_async([str(job.pk), job.text], task_id=str(job.pk), retry=False)
    except OperationalError as error:
        logger.warning("job %s waits for the queue: %s", job.pk, error)
        raise NotSentError from error
    Job.objects.filter(pk=job.pk).update(sent_at=timezone.now())


def change(number, statuses=Job.UNFINISHED, **fields):
    """The changed job, or None where it was in none of these statuses."""
    found = Job.objects.filter(pk=number, status__in=statuses)
    if not found.update(version=F("version") + 1, updated_at=timezone.now(), **fields):
        return None
    job = Job.objects.get(pk=number)
    transaction.on_commit(lambda: push.publish(job.state()))
    return job


def begin(number):
    """For a task: its job, or None where there is nothing to do any more."""
    job = change(number, status=Job.Status.RUNNING, progress=0, attempts=F("attempts") + 1, message="")
    if job is None:
        return None
    if job.cancel_requested:
        return finish(number, Job.Status.CANCELLED)
    if job.attempts > MOST_ATTEMPTS:
        return finish(number, Job.Status.FAILED, message=f"given up after {MOST_ATTEMPTS} attempts")
    return job


@transaction.atomic
def succeed(number, result):
    """The mark and the effect: both or neither. Of two runs of the job the second finds it marked."""
    if change(number, status=Job.Status.DONE, progress=100, result=result, message=""):
        Effect.objects.create(job_id=number)


def finish(number, status, message=""):
    change(number, status=status, message=message[:200])


def cancel(job):
    """At once where nothing runs; else the task sees the wish at its next step.

    Nothing is said to the queue: whoever takes the message finds the row cancelled, and Celery's revoke()
    may hang for as long as Redis is away.
    """
    if not change(job.pk, [Job.Status.WAITING, Job.Status.RETRYING], status=Job.Status.CANCELLED):
        change(job.pk, cancel_requested=True)


def send_lost():
    """Jobs that the queue never got, or lost."""
    now = timezone.now()
    unsent = Q(status=Job.Status.WAITING, sent_at=None, created_at__lt=now - UNSENT)
    lost = Job.objects.filter(unsent | Q(updated_at__lt=now - LOST), status__in=Job.UNFINISHED)
    for job in lost[:MOST_UNFINISHED_IN_ALL]:
        Job.objects.filter(pk=job.pk).update(updated_at=now)
        send(job)


def refresh():
    """The figures of the page, and old rows away."""
    Job.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    figures = dict(Job.objects.order_by().values_list("status").annotate(Count("pk")))
    Statistic.objects.get_or_create(pk=1)
    Statistic.objects.filter(pk=1).update(
        figures=figures, refreshes=F("refreshes") + 1, refreshed_at=timezone.now()
    )
