"""Several services asked for one answer: all at once, or one after another.

A call never raises because of its service: what came in time is shown, and beside it what did not. An error
of ours, or the cancellation of the whole, does go through.
"""

import asyncio
import time
from dataclasses import dataclass

import aiohttp
import httpx
from asgiref.sync import sync_to_async

from dashboard import clients

SERVICES = ["weather", "restaurants", "news", "stocks"]


class FailedError(Exception):
    """The service answered, and it was no success."""


@dataclass(frozen=True)
class Call:
    service: str
    delay: float = 0
    jitter: float = 0
    failures: float = 0
    timeout: float = 10

    @property
    def params(self):
        return {"delay": self.delay, "jitter": self.jitter, "failures": self.failures}


class Stopwatch:
    def __init__(self):
        self.began = time.perf_counter()

    def seconds(self):
        return round(time.perf_counter() - self.began, 4)


def result(call, start, end, data=None, error=None):
    outcome = "ok" if error is None else "late" if isinstance(error, LATE) else "failed"
    return {
        "service": call.service,
        "delay": call.delay,
        "start": start,
        "end": end,
        "outcome": outcome,
        # In public the kind of failure alone: messages name hosts and paths.
        "error": None
        if error is None
        else str(error)
        if isinstance(error, FailedError)
        else type(error).__name__,
        "data": data,
    }


LATE = (TimeoutError, httpx.TimeoutException)
EXPECTED = (*LATE, FailedError, httpx.HTTPError, aiohttp.ClientError, ValueError)  # ValueError: no JSON


def refuse_failure(status):
    if status != 200:
        raise FailedError(f"HTTP {status}")


async def over_httpx(call):
    client = (await clients.pool()).httpx
    response = await client.get(f"/{call.service}", params=call.params)
    refuse_failure(response.status_code)
    return response.json()


async def over_aiohttp(call):
    session = (await clients.pool()).aiohttp
    async with session.get(f"/{call.service}", params=call.params) as response:
        refuse_failure(response.status)
        return await response.json()


OVER = {"httpx": over_httpx, "aiohttp": over_aiohttp}


async def ask(call, stopwatch, over="httpx"):
    start = stopwatch.seconds()
    try:
        # For all of it: a free connection, connecting, the headers, the body. A client's own timeouts begin
        # anew with each of these.
        async with asyncio.timeout(call.timeout):
            data = await OVER[over](call)
    except EXPECTED as error:
        return result(call, start, stopwatch.seconds(), error=error)
    return result(call, start, stopwatch.seconds(), data)


async def by_gather(coroutines):
    """Were one to raise, the others would run on unseen; here they catch what is their service's fault."""
    return await asyncio.gather(*coroutines)


async def by_taskgroup(coroutines):
    """Were one to raise, the others would be cancelled, and nobody leaves before all have ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]


TOGETHER = {"gather": by_gather, "taskgroup": by_taskgroup}


async def together(calls, over="httpx", by="gather"):
    """The results in the calls' order. Cancelled (the client went), it cancels every call that still runs."""
    stopwatch = Stopwatch()
    results = await TOGETHER[by]([ask(call, stopwatch, over) for call in calls])
    return stopwatch.seconds(), results


def one_after_another(calls):
    """As in a `def` view: nobody can cancel it, the thread calls on though the client has gone."""
    stopwatch = Stopwatch()
    results = []
    with clients.blocking() as client:
        for call in calls:
            start = stopwatch.seconds()
            try:
                response = client.get(f"/{call.service}", params=call.params, timeout=call.timeout)
                refuse_failure(response.status_code)
                data = response.json()
            except EXPECTED as error:
                results.append(result(call, start, stopwatch.seconds(), error=error))
            else:
                results.append(result(call, start, stopwatch.seconds(), data))
    return stopwatch.seconds(), results


# The hop that Django makes for a `def` view.
one_after_another_in_a_thread = sync_to_async(one_after_another)
