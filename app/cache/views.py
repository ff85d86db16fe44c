import asyncio
import re
import time

from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from cache.per_view import async_cache_page
from cache.stampede import get_or_compute
from lab.parameters import ParameterError, clear_refusals, number
from lab.work import interval, place

FRESH, STALE = 5, 30


@require_safe
async def index(request):
    return render(request, "cache/index.html", {"fresh": FRESH, "stale": STALE})


def dear(seconds):
    async def compute():
        began = time.monotonic()
        await asyncio.sleep(seconds)  # a query over a million rows
        return place() | interval(began)

    return compute


@never_cache
@require_safe
@clear_refusals
async def value(request):
    """Low-level: `aget` and `aset` around one value."""
    name = request.GET.get("name", "example")
    if not re.fullmatch(r"[a-z0-9]{1,16}", name):
        raise ParameterError("name must be 1 to 16 small letters and digits")
    seconds = number(request, "seconds", 0.5, 0, 2)
    began = time.monotonic()
    found, outcome = await get_or_compute(f"cache:{name}", dear(seconds), fresh=FRESH, stale=STALE)
    return JsonResponse({"outcome": outcome, "computed": found} | place() | interval(began))


@require_safe
@clear_refusals
@async_cache_page(FRESH)
async def page(request):
    """Per view: the whole answer, kept by its URL and what Vary names."""
    seconds = number(request, "seconds", 0.5, 0, 2)
    return JsonResponse({"computed": await dear(seconds)()})
