import uuid

from django.db import models


class Job(models.Model):
    """Work that a visitor ordered. The row is the truth: queue, worker and pushes may lose what they hold."""

    class Kind(models.TextChoices):
        FETCH = "fetch", "ask twelve services"
        CRUNCH = "crunch", "compute"
        FLAKY = "flaky", "fail twice, then succeed"
        DOOMED = "doomed", "fail for good"

    class Status(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        RETRYING = "retrying", "Failed, will be tried again"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    UNFINISHED = [Status.WAITING, Status.RUNNING, Status.RETRYING]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # also the Celery task's
    owner = models.CharField(max_length=50)  # "user:7" or "visitor:<random>"
    key = models.UUIDField()  # the same order sent twice has the same
    kind = models.CharField(max_length=10, choices=Kind)
    text = models.CharField(max_length=100)
    status = models.CharField(max_length=10, choices=Status, default=Status.WAITING)
    progress = models.PositiveSmallIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    message = models.CharField(max_length=200, blank=True)
    result = models.JSONField(null=True)
    cancel_requested = models.BooleanField(default=False)
    # One more with each change, under the row's lock, so that no reader can see a later one and miss another.
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    sent_at = models.DateTimeField(null=True)  # when the queue took it
    updated_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="one_job_an_order")]

    def __str__(self):
        return f"{self.kind} {self.id}"

    @property
    def finished(self):
        return self.status not in self.UNFINISHED

    @property
    def note(self):
        return self.message or ", ".join(f"{name} {value}" for name, value in (self.result or {}).items())

    def state(self):
        """What a browser is told."""
        return {
            "id": str(self.pk),
            "kind": self.kind,
            "text": self.text,
            "status": self.status,
            "says": self.get_status_display(),
            "progress": self.progress,
            "attempts": self.attempts,
            "note": self.note,
            "result": self.result,
            "cancelling": self.cancel_requested and not self.finished,
            "finished": self.finished,
            "version": self.version,
        }


class Effect(models.Model):
    """What a job leaves behind in the world: a charge, a letter. Nothing here keeps it from being there twice
    but the transaction that writes it."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="effects")
    at = models.DateTimeField(auto_now_add=True)


class Statistic(models.Model):
    """One row, written by the clock."""

    figures = models.JSONField(default=dict)
    refreshes = models.PositiveIntegerField(default=0)
    refreshed_at = models.DateTimeField(null=True)
