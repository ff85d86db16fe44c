"""What the commands by the clock leave behind."""

from django.db import models


class DailyStatistic(models.Model):
    day = models.DateField(primary_key=True)
    visits = models.PositiveIntegerField()
    posts = models.PositiveIntegerField()
    messages = models.PositiveIntegerField()
    counted_at = models.DateTimeField()

    class Meta:
        ordering = ["-day"]

    def __str__(self):
        return f"{self.day}"


class Run(models.Model):
    """When a command was last done, by whichever host."""

    name = models.CharField(max_length=100, primary_key=True)
    at = models.DateTimeField()

    def __str__(self):
        return f"{self.name}: {self.at}"


class Backfill(models.Model):
    """How far a backfill has come, written in the same transaction as its rows."""

    name = models.CharField(max_length=100, primary_key=True)
    done_to = models.BigIntegerField(default=0)  # the last primary key that was looked at
    rows = models.PositiveBigIntegerField(default=0)
    moved_at = models.DateTimeField(auto_now=True)

    def __str__(self):
        return f"{self.name}: {self.rows} rows, to {self.done_to}"
