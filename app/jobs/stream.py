"""A job's progress as Server-Sent Events.

Each event carries the whole state of the job and its version as id, so that a browser that comes back with
`Last-Event-ID` gets what it missed. Pushed states come from Redis; the database is asked at the beginning and
at each heartbeat, and its connection given back at once: Django would hold the request's until the last byte.
"""

import asyncio
import json

from asgiref.sync import sync_to_async
from django.db import connection

from jobs import push
from jobs.models import Job

HEARTBEAT = 10  # seconds of silence until a comment: proxies cut what is silent (nginx here after 60 s)
# Shorter than a stopping worker waits for its requests (app_drain_seconds), so that a deploy cuts no stream.
LIFETIME = 20
RETRY = 1000  # milliseconds after which the browser comes back
MOST_STREAMS = 200  # of this process; each has a connection to Redis

streams = 0


@sync_to_async
def look(number):
    try:
        job = Job.objects.filter(pk=number).first()
        return job and job.state()
    finally:
        if not connection.in_atomic_block:
            connection.close()


async def events(number, seen):
    """Closed by Django when the client goes: what is awaited is cancelled, the connection to Redis ends."""
    global streams
    clock = asyncio.get_running_loop().time
    ends = clock() + LIFETIME
    streams += 1
    try:
        yield f"retry: {RETRY}\n\n"
        # Listening comes before looking: what changes in between is pushed, what comes twice is told once.
        async with push.listening(number) as next_state:
            state = await look(number)
            while state:
                if state["version"] > seen:
                    seen = state["version"]
                    yield f"event: job\nid: {seen}\ndata: {json.dumps(state, ensure_ascii=False)}\n\n"
                else:
                    yield ": still here\n\n"
                if state["finished"] or clock() >= ends:
                    return
                left = min(HEARTBEAT, max(ends - clock(), 0))
                state = await next_state(left) or await look(number)
    finally:
        streams -= 1
