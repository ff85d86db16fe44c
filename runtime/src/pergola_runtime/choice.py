"""Which handler serves HTTP: pergola_runtime's, or Django's own. PERGOLA_HANDLER is app_handler's value.

auto     pergola_runtime's on the versions that it was tested with, otherwise Django's
lean     pergola_runtime's; an error where `auto` takes Django's
django   Django's
"""

import contextlib
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from pergola_runtime import threads

DEFAULT = "auto"

# The versions that the tests run with: this one or newer, and older than that one.
TESTED = {
    "Django": ((5, 2), (6, 2)),
    "asgiref": ((3, 13), (3, 14)),
    "psycopg": ((3, 2), (3, 4)),
    "uvicorn": ((0, 51), (0, 55)),
    "channels": ((4, 2), (4, 4)),
}


def untested():
    """A sentence about the first package whose version is outside of TESTED; empty if there is none."""
    for package, (least, below) in TESTED.items():
        with contextlib.suppress(PackageNotFoundError):  # a project without PostgreSQL needs no psycopg
            found = version(package)
            if not least <= tuple(map(int, re.findall(r"\d+", found)[:2])) < below:
                first, end = (".".join(map(str, numbers)) for numbers in (least, below))
                return (
                    f"{package} {found} is outside of the versions that pergola_runtime's handler was "
                    f"tested with ({first} or newer, older than {end})"
                )
    return ""


def kept_too_long():
    """A sentence about a connection age that our handler does not honour; empty if there is none."""
    for alias, database in settings.DATABASES.items():
        age = database.get("CONN_MAX_AGE", 0)
        if age is None or age > threads.MAX_AGE:
            return (
                f"DATABASES[{alias!r}] has CONN_MAX_AGE={age}, and pergola_runtime's handler keeps a "
                f"connection for {threads.MAX_AGE} s at most"
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
    threads.limit(environ)
    reason = untested() or kept_too_long()
    if not reason:
        return "lean", ""
    if asked == "lean":
        raise ImproperlyConfigured(f"app_handler is lean, but {reason}: set app_handler to auto or django")
    return "django", reason


def report(chosen, reason):
    """Write which handler serves to standard error: the journal, where app-status finds it."""
    text = (
        "pergola_runtime's handler serves" if chosen == "lean" else f"Django's own handler serves: {reason}"
    )
    print(f"pergola_runtime: {text}", file=sys.stderr, flush=True)
