from django.shortcuts import render
from django.views.decorators.http import require_safe

from upkeep.models import Backfill, DailyStatistic

SHOWN = 14


@require_safe
async def index(request):
    context = {
        "days": [day async for day in DailyStatistic.objects.all()[:SHOWN]],
        "backfills": [backfill async for backfill in Backfill.objects.all()[:SHOWN]],
        "user": await request.auser(),
    }
    return render(request, "upkeep/index.html", context)
