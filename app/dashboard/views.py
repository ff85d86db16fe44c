import os

from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from dashboard.calls import one_after_another, one_after_another_in_a_thread, together
from dashboard.forms import DashboardForm


@require_http_methods(["GET", "HEAD"])
async def dashboard(request):
    return render(request, "dashboard/dashboard.html", {"form": DashboardForm()})


@never_cache
@require_http_methods(["GET"])
async def data(request):
    """200 also when calls failed or came late: the answer says of each what became of it."""
    form = DashboardForm(request.GET)
    if not form.is_valid():
        return refused(form)
    wanted = form.cleaned_data
    if wanted["mode"] == "async":
        return told(wanted, *await together(form.calls(), wanted["client"], wanted["by"]))
    return told(wanted, *await one_after_another_in_a_thread(form.calls()))


@never_cache
@require_http_methods(["GET"])
def in_turn(request):
    """As many sites still have it: a `def` view, and one call after another."""
    query = request.GET.copy()
    query["mode"] = "sync"
    form = DashboardForm(query)
    if not form.is_valid():
        return refused(form)
    return told(form.cleaned_data, *one_after_another(form.calls()))


def refused(form):
    return JsonResponse({"errors": form.errors}, status=400)


def told(wanted, elapsed, calls):
    response = JsonResponse(
        {
            "mode": wanted["mode"],
            "client": wanted["client"] if wanted["mode"] == "async" else "httpx",
            "by": wanted["by"] if wanted["mode"] == "async" else None,
            "elapsed": elapsed,
            "partial": any(call["outcome"] != "ok" for call in calls),
            "process": os.getpid(),
            "calls": calls,
        }
    )
    # The browser's developer tools draw these as well.
    response["Server-Timing"] = ", ".join(
        f"{number}-{call['service']};dur={(call['end'] - call['start']) * 1000:.1f}"
        for number, call in enumerate(calls, 1)
    )
    return response
