"""The versions of other packages that the tests run with."""

import re
from importlib.metadata import PackageNotFoundError, version

# this one or newer, and older than that one
TESTED = {
    "Django": ((5, 2), (6, 2)),
    "asgiref": ((3, 13), (3, 14)),
    "psycopg": ((3, 3), (3, 4)),
    "uvicorn": ((0, 54), (0, 55)),
    "channels": ((4, 3), (4, 4)),
    "celery": ((5, 3), (5, 8)),
    "redis": ((5, 0), (9, 0)),
    "django-redis": ((6, 0), (8, 0)),
    "channels-redis": ((4, 3), (5, 0)),
}


def installed(package):
    """Its version; empty if it is not installed. A directory of that name in a project is not the package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def untested(*packages):
    """The first of these packages whose version is outside of TESTED, in words; empty if there is none."""
    for package in packages:
        least, below = TESTED[package]
        found = installed(package)
        if found and not least <= tuple(map(int, re.findall(r"\d+", found)[:2])) < below:
            first, end = (".".join(map(str, numbers)) for numbers in (least, below))
            return (
                f"{package} {found} is outside of the versions that pergola_runtime was tested with "
                f"({first} or newer, older than {end})"
            )
    return ""
