"""The pair for plain work on the database: one row, in a sync and in an async view."""

import time

from django.contrib.auth.models import Permission

from lab.pairs import Measured, report


class SyncRow(Measured):
    """The request changes threads for the view, and that is all."""

    def get(self, request):
        began = time.monotonic()
        Permission.objects.select_related("content_type").earliest("pk")
        return report(request, "sync row", began)


class AsyncRow(Measured):
    """The ORM goes to a thread all the same, and nothing runs meanwhile that would pay for it."""

    async def get(self, request):
        began = time.monotonic()
        await Permission.objects.select_related("content_type").aearliest("pk")
        return report(request, "async row", began)
