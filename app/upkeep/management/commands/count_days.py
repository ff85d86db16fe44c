"""Counts each day's visits, posts and messages.

The last days are counted anew each time, and a day's row is put in the place of the one that is there: run
twice, or after some days of standing still, the figures are right all the same.
"""

from datetime import UTC, datetime, time, timedelta

from django.db.models import Count
from django.db.models.functions import TruncDate
from django.utils import timezone

from chat.models import Message
from core.models import Visit
from posts.models import Post
from upkeep.command import LockedCommand, up_to
from upkeep.models import DailyStatistic

COUNTED = {"visits": (Visit, "at"), "posts": (Post, "created_at"), "messages": (Message, "at")}


class Command(LockedCommand):
    help = __doc__.split("\n", 1)[0]

    def add_arguments(self, parser):
        parser.add_argument("--days", type=up_to(400), default=30, metavar="N", help="up to today (30)")

    def work(self, *, days, **options):
        now = timezone.now()
        first = now.date() - timedelta(days=days - 1)
        counts = {name: self.count(model, field, first) for name, (model, field) in COUNTED.items()}
        DailyStatistic.objects.bulk_create(
            [
                DailyStatistic(
                    day=day,
                    counted_at=now,
                    **{name: counted.get(day, 0) for name, counted in counts.items()},
                )
                for day in (first + timedelta(days=number) for number in range(days))
            ],
            update_conflicts=True,
            unique_fields=["day"],
            update_fields=[*COUNTED, "counted_at"],
        )
        return f"{days} days counted"

    def count(self, model, field, first):
        """By UTC's days; the condition is on the field itself, where an index helps."""
        since = datetime.combine(first, time(), UTC)
        rows = model.objects.filter(**{f"{field}__gte": since}).order_by()
        by_day = rows.annotate(day=TruncDate(field, tzinfo=UTC)).values("day").annotate(count=Count("pk"))
        return {row["day"]: row["count"] for row in by_day}
