"""Every environment variable of this project, once. settings.py reads them from here and nowhere else."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

SQLITE = f"sqlite:///{Path(__file__).resolve().parent.parent}/db.sqlite3"


def boolean(text):
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def database(text):
    return dj_database_url.parse(text)


EXPECTED = {boolean: "true or false", int: "a whole number", database: "a database's URL"}


@dataclass(frozen=True)
class Variable:
    name: str
    type: Callable
    help: str
    default: str | None = None  # None: required
    debug: str | None = (
        None  # what DEBUG=true puts in a required one's place: a checkout runs without services
    )


VARIABLES = {
    variable.name: variable
    for variable in (
        Variable("DJANGO_SETTINGS_MODULE", str, "the settings' module, read by Django", "config.settings"),
        Variable("DEBUG", boolean, "development: defaults for all below, errors with source code", "false"),
        Variable("SECRET_KEY", str, "signs sessions and tokens; 50 random characters or more", debug="debug"),
        Variable(
            "ALLOWED_HOSTS", names, "the host names that are answered: a, b", debug="localhost,127.0.0.1"
        ),
        Variable("CSRF_TRUSTED_ORIGINS", names, "other origins whose forms are taken: https://a, ...", ""),
        Variable("DATABASE_URL", database, "PostgreSQL through PgBouncer", debug=SQLITE),
        Variable("DATABASE_DIRECT_URL", database, "the same database past PgBouncer", debug=SQLITE),
        Variable("REDIS_URL", str, "Redis, for the cache, the channel layer and the jobs", debug=""),
        Variable("STATIC_ROOT", str, "the collected files that nginx serves", debug="static-collected"),
        Variable("MEDIA_ROOT", str, "the uploaded files", debug="media"),
        Variable(
            "UPSTREAMS_SOCKET", str, "where the stand-in of outside APIs listens", "/run/app/upstreams.sock"
        ),
        Variable("LAB_ASGI_SOCKET", str, "where the lab's Uvicorn listens", "/run/app/lab-asgi.sock"),
        Variable("LAB_WSGI_SOCKET", str, "where the lab's sync worker listens", "/run/app/lab-wsgi.sock"),
        Variable("EMAIL_HOST", str, "the mail relay", "localhost"),
        Variable("EMAIL_PORT", int, "the mail relay's port", "25"),
        Variable("DEFAULT_FROM_EMAIL", str, "the sender of the site's mail", "webmaster@localhost"),
    )
}


def read(name, environ=os.environ):
    """The variable's typed value. Set to nothing is the same as not set."""
    variable = VARIABLES[name]
    text = environ.get(name, "").strip() or variable.default
    if text is None and variable.debug is not None and read("DEBUG", environ):
        text = variable.debug
    if text is None:
        raise ImproperlyConfigured(f"{name} is not set: {variable.help}")
    try:
        return variable.type(text)
    except (KeyError, ValueError):
        # Without the value, which may be a password.
        raise ImproperlyConfigured(f"{name} is not {EXPECTED[variable.type]}: {variable.help}") from None
