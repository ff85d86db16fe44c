"""Pages and streams of a visitor's own jobs. Somebody else's are 404, as those that there never were."""

import re
import time
import uuid
from http import HTTPStatus

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpResponse, HttpResponseBadRequest, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from jobs import bridge, services, stream
from jobs.forms import JobForm
from jobs.models import Job, Statistic
from lab.parameters import clear_refusals, number

COOKIE = "jobs"
SHOWN = 10
TEXT = "포도나무 아래서"  # what comes back from a worker unharmed


async def owner_of(request):
    user = await request.auser()
    if user.is_authenticated:
        return f"user:{user.pk}"
    visitor = request.get_signed_cookie(COOKIE, default=None, max_age=services.KEPT, salt=COOKIE)
    return f"visitor:{visitor}" if visitor else ""


def with_cookie(response, owner):
    """A cookie of its own: Django sets none of a session on a 5xx answer, and with the queue away a new
    visitor would never see again the job that was kept."""
    response.set_signed_cookie(
        COOKIE,
        owner.removeprefix("visitor:"),
        salt=COOKIE,
        max_age=services.KEPT,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    return response


async def own(request, job_id):
    job = await Job.objects.filter(pk=job_id, owner=await owner_of(request)).afirst()
    if job is None:
        raise Http404("You have no such job.")
    return job


@never_cache
@require_safe
async def index(request):
    return await page(request)


async def page(request, refused="", status=200, owner=None, key=None):
    owner = owner or await owner_of(request)
    context = {
        "kinds": Job.Kind.choices,
        "text": TEXT,
        # a form that is sent twice orders one job: its key is made here, and not where it arrives
        "key": key or uuid.uuid4(),
        "jobs": [job async for job in Job.objects.filter(owner=owner)[:SHOWN]] if owner else [],
        "statistic": await Statistic.objects.filter(pk=1).afirst(),
        "refused": refused,
    }
    return await sync_to_async(render)(request, "jobs/index.html", context, status=status)


@never_cache
@require_POST
async def start(request):
    form = JobForm(request.POST)
    if not form.is_valid():
        reasons = "; ".join(f"{name}: {' '.join(errors)}" for name, errors in form.errors.items())
        return await page(request, f"The job was not ordered. {reasons}", HTTPStatus.BAD_REQUEST)
    known = await owner_of(request)
    owner = known or f"visitor:{uuid.uuid4().hex}"
    response = await order(request, owner, **form.cleaned_data)
    return response if known else with_cookie(response, owner)


async def order(request, owner, kind, text, key):
    try:
        # In a thread: not for the queries alone, `.delay()` waits on a socket as well.
        await sync_to_async(services.create)(owner, kind, text, key)
    except services.TooManyError as error:
        return await page(request, str(error), HTTPStatus.TOO_MANY_REQUESTS)
    except services.NotSentError:
        words = "The queue does not answer. Your job is kept, and starts as soon as it does."
        return await page(request, words, HTTPStatus.SERVICE_UNAVAILABLE, owner, key)
    return redirect("jobs:index")


@never_cache
@require_POST
async def cancel(request, job_id):
    await sync_to_async(services.cancel)(await own(request, job_id))
    return redirect("jobs:index")


@never_cache
@require_safe
async def data(request, job_id):
    job = await own(request, job_id)
    return JsonResponse(job.state() | {"effects": await job.effects.acount()})


@require_safe
async def events(request, job_id):
    seen = request.headers.get("Last-Event-ID", "0")
    if not re.fullmatch(r"[0-9]{1,9}", seen):
        return HttpResponseBadRequest("Last-Event-ID is the number of an event", content_type="text/plain")
    job = await own(request, job_id)
    if job.finished and job.version <= int(seen):
        return HttpResponse(status=HTTPStatus.NO_CONTENT)  # an EventSource does not come back after this
    if stream.streams >= stream.MOST_STREAMS:
        return HttpResponse(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "5"})
    return StreamingHttpResponse(
        stream.events(job.pk, int(seen)),
        content_type="text/event-stream",
        headers={
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        },  # nginx hands on what comes, at once
    )


@require_safe
async def bridge_page(request):
    return render(request, "jobs/bridge.html")


@never_cache
@require_safe
@clear_refusals
@bridge.sync_only_middleware
def bridge_data(request):
    """A `def` view: async code is called from it, and costs are measured where they arise."""
    calls = number(request, "calls", 50, 1, 200, kind=int)
    return JsonResponse(
        {
            "server": "ASGI" if isinstance(request, ASGIRequest) else "WSGI",
            "calls": calls,
            "middleware": request.bridge_milliseconds,
            "rows": bridge.costs(calls),
            "at": time.time(),
        }
    )
