"""A Django project whose requests leave what they can behind, and look whether another's is there.

`/plain?N`, `/stream?N`, `/synchronous?N`, and a WebSocket with the query N: the answer ends with "alone", or
says what of another request was seen. N is the mark that the request leaves in its session, on its
connection, in its thread and in a context variable. `/sleeping` waits for `/wake`, `/sleepers` says how many
wait, `/page` makes one query.
"""

import asyncio
import os
import random
import threading
import time
from contextvars import ContextVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from waiting import PATIENCE

SECRET_KEY = "statesite"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("LEAN_HOST", ""),
        "PORT": "5432",  # PostgreSQL itself, where a session outlives a transaction
        "NAME": "postgres",
        "USER": "test",
    }
}
ALTERS = (
    "SET lean.mark = '{0}'",
    "SET search_path = mark_{0}, public",
    "CREATE TEMPORARY TABLE mark_{0} ()",
    "SELECT pg_advisory_lock(4711, {0})",
)
TELLS = """
SELECT current_setting('lean.mark', true)
UNION SELECT substring(current_setting('search_path') from 'mark_(\\d+)')
UNION SELECT substring(relname from 'mark_(\\d+)') FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION SELECT objid::text FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 4711 AND pid = pg_backend_pid()
"""
here = threading.local()
variable = ContextVar("mark", default=None)


def look():
    """The marks that this thread finds."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(TELLS)
        marks = {row[0] for row in cursor.fetchall()}
    return sorted((marks | {getattr(here, "mark", None), getattr(connection, "mark", None)}) - {None, ""})


def begin(number, found):
    """Leave this mark. (!) A thread, and what is in it, may be an earlier request's, as under WSGI."""
    from django.db import connection

    here.mark = connection.mark = None
    if others := look():
        found.append(f"at the beginning of {number}: {others}")
    with connection.cursor() as cursor:
        for statement in ALTERS:
            cursor.execute(statement.format(number))
    here.mark = connection.mark = number
    goes_on(number, found)


def goes_on(number, found):
    if look() != [number]:
        found.append(f"in {number}: {look()}")


def told(found):
    return "; ".join(found) or "alone"


async def begin_and_go_on(number, found):
    if variable.get() is not None:
        found.append(f"context of {number}: {variable.get()}")
    variable.set(number)
    await sync_to_async(begin)(number, found)
    await asyncio.sleep(random.random() / 20)
    await sync_to_async(goes_on)(number, found)


async def plain(request):
    found = []
    await begin_and_go_on(request.META["QUERY_STRING"], found)
    return HttpResponse(told(found))


async def stream(request):
    number, found = request.META["QUERY_STRING"], []
    await begin_and_go_on(number, found)

    async def parts():
        for _ in range(3):
            await asyncio.sleep(random.random() / 20)
            await sync_to_async(goes_on)(number, found)
            yield "part "
        yield told(found)

    return StreamingHttpResponse(parts())


def synchronous(request):
    number, found = request.META["QUERY_STRING"], []
    begin(number, found)
    time.sleep(random.random() / 20)
    goes_on(number, found)
    return HttpResponse(told(found))


async def websocket(scope, receive, send):
    number, found = scope["query_string"].decode(), []
    await receive()
    await send({"type": "websocket.accept"})
    await begin_and_go_on(number, found)
    for _ in range(3):
        await asyncio.sleep(random.random() / 20)
        await sync_to_async(goes_on)(number, found)
    await send({"type": "websocket.send", "text": told(found)})
    await send({"type": "websocket.close"})
    # as Channels' database_sync_to_async() does; under Django's handler nothing else closes it
    await sync_to_async(close_old_connections)()


asleep, awake = [], threading.Event()


def sleeping(request):
    asleep.append(1)
    return HttpResponse("woke up" if awake.wait(PATIENCE) else "slept on")


async def sleepers(request):
    return HttpResponse(str(len(asleep)))


async def wake(request):
    awake.set()
    return HttpResponse("woken")


def page(request):
    from django.contrib.auth.models import User

    return HttpResponse(str(User.objects.count()))


urlpatterns = [
    path(view.__name__, view) for view in (plain, stream, synchronous, sleeping, sleepers, wake, page)
]


def __getattr__(name):
    """The application is made at the first look at it: these are also the settings."""
    if name == "application":
        from django.core.asgi import get_asgi_application

        http = get_asgi_application()

        async def application(scope, receive, send):
            await (websocket if scope["type"] == "websocket" else http)(scope, receive, send)

        return application
    raise AttributeError(name)
