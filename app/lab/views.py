"""Pages and measurements. Each measurement says in which process and thread it ran, from when to when."""

from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from lab import deadlock, hops, kinds, neighbours, traps
from lab.pairs import Measured
from lab.parameters import choice, clear_refusals, number

LONGEST_HARM = 2  # seconds for which a worker, or one of its threads, may be held by a demonstration


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


@require_safe
async def neighbours_page(request):
    return render(request, "lab/neighbours.html", {"experiments": neighbours.EXPERIMENTS})


@never_cache
@require_safe
@clear_refusals
async def neighbours_data(request):
    kind = choice(request, "kind", "async", neighbours.EXPERIMENTS)
    experiment = neighbours.EXPERIMENTS[kind]
    sleepers = number(request, "sleepers", experiment.sleepers, 1, experiment.sleepers, int)
    return JsonResponse({"kind": kind} | await neighbours.run(experiment, sleepers))


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
