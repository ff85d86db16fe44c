"""The signals of posts.

`await post_changed.asend_robust(...)` runs async receivers in the event loop and sync ones in a thread. The
signals of models are sent by sync code, in the thread where `asave` and `adelete` run it.
"""

from functools import partial

from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models.signals import post_delete
from django.dispatch import Signal, receiver

from posts.models import Attachment, Change

KEPT_CHANGES = 1000
post_changed = Signal()  # arguments: verb, number, title


@receiver(post_changed)
async def write_down(sender, verb, number, title, **_):
    change = await Change.objects.acreate(verb=verb, post_number=number, title=title)
    await Change.objects.filter(pk__lte=change.pk - KEPT_CHANGES).adelete()


@receiver(post_delete, sender=Attachment)
def remove_file(sender, instance, **_):
    """Whoever deleted the row. A file cannot be rolled back: it goes only when the row is gone for good."""
    transaction.on_commit(partial(default_storage.delete, instance.file.name), robust=True)
