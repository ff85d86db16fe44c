"""The legacy library from async code, in both forms of sync_to_async.

Thread-sensitive (the default): all such calls of a request run in the request's one thread. One session
serves them all and the database connection is the request's, but they wait for each other, gathered or not.

Free: any thread of the pool. The calls overlap, but each needs a session of its own, and opens a database
connection that no end of a request closes: the call has to.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import sync_to_async
from django.db import connection

from legacy.library import SmsSession, report

# Its own threads: a gateway that hangs must not take the pool that everything else shares (name lookups,
# asyncio.to_thread). It is also the bound on sessions and database connections.
threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="legacy")


def free(function):
    def run(*args):
        try:
            return function(*args)
        finally:
            connection.close()  # the request's end closes only its own thread's

    return sync_to_async(run, thread_sensitive=False, executor=threads)


async def send_sensitive(numbers, text, seconds):
    session = await sync_to_async(SmsSession)()
    send = sync_to_async(session.send)
    return await asyncio.gather(*(send(number, text, seconds) for number in numbers))


async def send_free(numbers, text, seconds):
    @free
    def send(number):
        return SmsSession().send(number, text, seconds)

    return await asyncio.gather(*(send(number) for number in numbers))


async def send_shared(numbers, text, seconds):
    """The mistake: one session, and threads that it does not know."""
    session = await sync_to_async(SmsSession)()
    send = free(session.send)
    return await asyncio.gather(*(send(number, text, seconds) for number in numbers))


SEND = {"sensitive": send_sensitive, "free": send_free, "shared": send_shared}
REPORT = {"sensitive": sync_to_async(report), "free": free(report), "shared": free(report)}
