"""Pages and measurements. Each measurement says in which process and thread it ran, from when to when."""

import asyncio
import time

from django.contrib.auth.models import Permission
from django.http import JsonResponse
from django.shortcuts import render
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from lab import deadlock, hops, kinds, traps
from lab.parameters import choice, clear_refusals, number
from lab.work import interval, place

LONGEST = 5  # seconds of a visitor's wait
LONGEST_HARM = 2  # seconds for which a worker, or one of its threads, may be held by a demonstration


def report(request, view, began):
    server = "asgi" if hasattr(request, "scope") else "wsgi"
    return JsonResponse({"view": view, "server": server} | place() | interval(began))


class Measured(View):
    http_method_names = ["get", "head", "options"]


class SyncFast(Measured):
    def get(self, request):
        return report(request, "sync", time.monotonic())


class AsyncFast(Measured):
    async def get(self, request):
        return report(request, "async", time.monotonic())


class SyncSleep(Measured):
    """Holds its thread; under ASGI that is the request's own, and the event loop stays free."""

    @clear_refusals
    def get(self, request):
        seconds = number(request, "seconds", 1, 0, LONGEST)
        began = time.monotonic()
        time.sleep(seconds)
        return report(request, "sync sleep", began)


class AsyncSleep(Measured):
    """Holds nothing."""

    @clear_refusals
    async def get(self, request):
        seconds = number(request, "seconds", 1, 0, LONGEST)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        return report(request, "async sleep", began)


class SyncRow(Measured):
    """Plain work on the database. The request changes threads for the view, and that is all."""

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


class Work(Measured):
    @clear_refusals
    async def get(self, request):
        kind = choice(request, "kind", "async-sleep", kinds.KINDS)
        seconds = number(request, "seconds", 0.5, 0, LONGEST_HARM)
        return JsonResponse({"kind": kind} | await kinds.observed(kind, seconds))


class Locked(Measured):
    @clear_refusals
    async def get(self, request):
        seconds = number(request, "seconds", 1, 0.1, LONGEST_HARM)
        with deadlock.turns.one():
            return JsonResponse(await deadlock.Deadlock().run(seconds))


class Mended(Measured):
    async def get(self, request):
        return JsonResponse(await deadlock.mended())


@require_safe
async def index(request):
    return render(request, "lab/index.html", {"kinds": kinds.KINDS, "longest_harm": LONGEST_HARM})


@never_cache
@require_safe
async def orm(request):
    user = await request.auser()
    outcomes = await traps.all_outcomes(request)
    return render(request, "lab/orm.html", {"traps": outcomes, "signed_in": user.is_authenticated})


@never_cache
@require_safe
async def thread_hops(request):
    """One after the other: each has an event loop and threads of its own."""
    rows = []
    for title, stack in hops.STACKS.items():
        host, scheme, middleware = request.get_host(), request.scheme, stack()
        counts = [await hops.count(middleware, f"/lab/{view}/", host, scheme) for view in ("async", "sync")]
        rows.append({"title": title, "async": counts[0], "sync": counts[1]})
    if request.GET.get("format") == "json":
        return JsonResponse({"stacks": rows})
    return render(request, "lab/hops.html", {"rows": rows})
