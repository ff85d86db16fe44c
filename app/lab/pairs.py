"""Class-based views in pairs: one answers at once, the other sleeps first. Each says where and when it ran,
and how many were asleep in its process at that moment.

Without models, so that the lab's own services (service.py) need none.
"""

import asyncio
import time

from django.http import JsonResponse
from django.views import View

from lab.parameters import clear_refusals, number
from lab.work import asleep, interval, place


def report(request, view, began):
    server = "asgi" if hasattr(request, "scope") else "wsgi"
    return JsonResponse({"view": view, "server": server} | place() | asleep.report() | interval(began))


class Measured(View):
    http_method_names = ["get", "head", "options"]
    longest = 5  # seconds of a visitor's wait

    def seconds(self):
        return number(self.request, "seconds", 1, 0, self.longest)


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
        seconds = self.seconds()
        began = time.monotonic()
        with asleep.one():
            time.sleep(seconds)
        return report(request, "sync sleep", began)


class AsyncSleep(Measured):
    """Holds neither the event loop nor a thread of its own making."""

    @clear_refusals
    async def get(self, request):
        seconds = self.seconds()
        began = time.monotonic()
        with asleep.one():
            await asyncio.sleep(seconds)
        return report(request, "async sleep", began)


# Only on the lab's own services, where they harm nobody:


class BlockingSleep(Measured):
    """The mistake: it holds the event loop, and with it everybody."""

    @clear_refusals
    async def get(self, request):
        seconds = self.seconds()
        began = time.monotonic()
        with asleep.one():
            time.sleep(seconds)  # noqa: ASYNC251
        return report(request, "blocking sleep", began)


def sleep_in_this_thread(seconds):
    with asleep.one():
        time.sleep(seconds)
        return place()


class PoolFast(Measured):
    """Needs a thread of the event loop's pool, if only for a moment."""

    async def get(self, request):
        began = time.monotonic()
        where = await asyncio.to_thread(place)
        return JsonResponse({"view": "pool", "server": "asgi"} | where | asleep.report() | interval(began))


class PoolSleep(Measured):
    """Holds a thread of the event loop's pool, which has processors + 4 of them, and 32 at most."""

    @clear_refusals
    async def get(self, request):
        seconds = self.seconds()
        began = time.monotonic()
        where = await asyncio.to_thread(sleep_in_this_thread, seconds)
        return JsonResponse(
            {"view": "pool sleep", "server": "asgi"} | where | asleep.report() | interval(began)
        )
