"""Which handler serves HTTP: pergola_runtime's, or Django's own. PERGOLA_HANDLER is app_handler's value.

auto     pergola_runtime's on the versions that it was tested with, otherwise Django's
lean     pergola_runtime's; an error where `auto` takes Django's
django   Django's

Modules that rely on private parts of Django and asgiref (lean.py, threads.py, middleware.py) are imported
only where pergola_runtime's handler serves: on other versions even their import may fail.
"""

import os
import sys

from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core import asgi
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers import asgi as handlers

from pergola_runtime.rediscache import limit_connections
from pergola_runtime.versions import untested

# of these the handler uses private parts
PACKAGES = ("Django", "asgiref", "psycopg", "uvicorn", "channels")

DEFAULT = "auto"
# Seconds after its opening within which a connection that is not in use is closed. An instance of PgBouncer
# that stops waits until its clients have left.
MAX_AGE = 10
# Calls at once in one process, unless PERGOLA_THREADS is set. More of them compete for the interpreter: with
# 64 clients of twenty rows, 8 took a tenth more processor time than 3.
LIMIT = 3

handler_is_made = False


def limit(environ=os.environ):
    text = environ.get("PERGOLA_THREADS") or str(LIMIT)
    if not text.isdecimal() or int(text) < 1:
        raise ImproperlyConfigured(
            f"PERGOLA_THREADS={text} is not a whole number of 1 or more: set app_threads"
        )
    return int(text)


def kept_too_long():
    """A sentence about a connection age that our handler does not honour; empty if there is none."""
    for alias, database in settings.DATABASES.items():
        age = database.get("CONN_MAX_AGE", 0)
        if age is None or age > MAX_AGE:
            return (
                f"DATABASES[{alias!r}] has CONN_MAX_AGE={age}, and pergola_runtime's handler keeps a "
                f"connection for {MAX_AGE} s at most"
            )
    return ""


def choose(environ=os.environ):
    """Return whose handler serves, "lean" or "django", and why it is Django's (or an empty text).

    Raises ImproperlyConfigured where PERGOLA_HANDLER cannot be honoured: when the application is loaded,
    before a release takes traffic.
    """
    asked = environ.get("PERGOLA_HANDLER") or DEFAULT
    if asked not in ("auto", "lean", "django"):
        raise ImproperlyConfigured(f"PERGOLA_HANDLER={asked} is not auto, lean or django: set app_handler")
    if asked == "django":
        return "django", "app_handler is django"
    limit(environ)
    reason = untested(*PACKAGES) or kept_too_long()
    if not reason:
        return "lean", ""
    if asked == "lean":
        raise ImproperlyConfigured(f"app_handler is lean, but {reason}: set app_handler to auto or django")
    return "django", reason


def report(text):
    """Write which handler serves to standard error: the journal, where app-status finds it."""
    print(f"pergola_runtime: {text}", file=sys.stderr, flush=True)


def report_application(name, environ=os.environ):
    """Report an application that made no handler by Django's get_asgi_application(), or refuse it for `lean`.

    It may not be Django's, make an ASGIHandler() of its own, or make one at the first request.
    """
    if handler_is_made:
        return
    reason = f"{name} does not call Django's get_asgi_application() when it is imported"
    if environ.get("PERGOLA_HANDLER") == "lean":
        raise ImproperlyConfigured(
            f"app_handler is lean, but {reason}: call it there, or set app_handler to auto"
        )
    report(f"the application's own handler serves: {reason}")


class Choosing(type):
    """Makes the chosen handler where django.core.asgi makes an ASGIHandler(), and no subclass of it."""

    def __call__(cls, *args, **kwargs):
        return make_handler() if cls is ASGIHandler else super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance):
        kind = handlers.ASGIHandler if cls is ASGIHandler else cls
        return type.__instancecheck__(kind, instance)


class ASGIHandler(handlers.ASGIHandler, metaclass=Choosing):
    __module__, __qualname__ = handlers.ASGIHandler.__module__, handlers.ASGIHandler.__qualname__


def install():
    """Let Django's get_asgi_application() return the chosen handler; limit the connections to Redis."""
    asgi.ASGIHandler = ASGIHandler
    limit_connections()


def make_handler():
    """Return the chosen handler, in place of ASGIHandler()."""
    global handler_is_made
    chosen, reason = choose()
    handler_is_made = True
    if chosen == "django":
        report(f"Django's own handler serves: {reason}")
        return handlers.ASGIHandler()
    from pergola_runtime.lean import open_handler

    report("pergola_runtime's handler serves")
    return open_handler()


def get_asgi_application():
    """Django's function, which agents patch; it returns the chosen handler."""
    install()
    return asgi.get_asgi_application()


def consumers(application):
    """The application, whose WebSocket consumers each have a thread context of their own.

    Without one, the synchronous calls of all consumers of a process run on one thread, one after another.
    """
    # an application need not be Django's
    if settings.configured and choose()[0] == "lean":
        from pergola_runtime.lean import consumer_context as context
    else:
        context = ThreadSensitiveContext

    async def serve(scope, receive, send):
        if scope["type"] != "websocket":
            await application(scope, receive, send)
        else:
            async with context():
                await application(scope, receive, send)

    return serve
