"""Counts the words of posts that were written before posts had a count.

A column that is new in a large table is filled in small transactions, each of which locks a few rows for a
moment, and not in a migration, which would hold the deploy and every writer. How far it has come is written
in the same transaction as the rows: killed in the middle, it goes on where the last batch ended. One run does
a bounded number of batches, and the clock starts the next one. What is saved meanwhile brings its count.
"""

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from posts.models import Post, count_words
from upkeep.command import LockedCommand, up_to
from upkeep.models import Backfill

NAME = "words of posts"


class Command(LockedCommand):
    help = __doc__.split("\n", 1)[0]

    def add_arguments(self, parser):
        parser.add_argument("--batch", type=up_to(5000), default=200, metavar="ROWS", help="of one (200)")
        parser.add_argument("--batches", type=up_to(1000), default=50, metavar="N", help="of one run (50)")

    def work(self, *, batch, batches, **options):
        counted = 0
        for _ in range(batches):
            found = self.step(batch)
            counted += found
            if found < batch:
                return f"{counted} posts counted, none left"
        return f"{counted} posts counted, more to come"

    @transaction.atomic
    def step(self, batch):
        state, _ = Backfill.objects.get_or_create(name=NAME)
        # locked, so that nobody edits a post between our count and our write
        rest = Post.objects.select_for_update().filter(words=None).order_by("pk").only("body")
        posts = list(rest.filter(pk__gt=state.done_to)[:batch])
        if len(posts) < batch:
            # At the end, from the beginning once more: keys are given out before they are committed, so that
            # lower ones may have come meanwhile.
            posts = list(rest[:batch])
        for post in posts:
            post.words = count_words(post.body)
        if posts:
            Post.objects.bulk_update(posts, ["words"])
            # update() leaves auto_now alone
            Backfill.objects.filter(name=NAME).update(
                done_to=max(state.done_to, posts[-1].pk), rows=F("rows") + len(posts), moved_at=timezone.now()
            )
        return len(posts)
