"""The sample's environment for the tests.

Set here and not in pytest's configuration, which would have pytest-django load the settings before this file,
and for tests that know no Django. Of the caller's own environment only DATABASE_URL counts.
"""

import asyncio
import os
from contextlib import aclosing

import httpx
import pytest
from app.servers import redis_server

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite://:memory:")
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "config.settings",
    "SECRET_KEY": "for the tests alone, but long and varied enough for check --deploy",
    "ALLOWED_HOSTS": "testserver,localhost",
    "DEBUG": "false",
    "DATABASE_URL": DATABASE_URL,
    "DATABASE_DIRECT_URL": DATABASE_URL,
    "REDIS_URL": "redis://:hush@127.0.0.1:1/0",  # where nobody answers
    "STATIC_ROOT": "/nonexistent/static",
    "MEDIA_ROOT": "/nonexistent/media",
}
os.environ.update(SETTINGS)

import django  # noqa: E402

django.setup()

from asgiref.sync import SyncToAsync  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402
from django.db import connections  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from pergola_runtime import threads  # noqa: E402

# Every page names static files, that of an error too: only who takes `collected` waits for their hashes.
HASHED = django_settings.STORAGES["staticfiles"]
django_settings.STORAGES = {
    **django_settings.STORAGES,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Those of production are slow on purpose.
django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def no_connection_left_in_a_thread():
    """Tests share asgiref's thread and the runtime's, and SQLite in memory ignores close(): one that may
    not use the database would be blamed for the connection of an earlier one."""
    yield
    thread = SyncToAsync.single_thread_executor
    thread.submit(forget_connections).result()
    if threads.pool:
        thread.submit(asyncio.run, end_threads()).result()


def forget_connections():
    for connection in connections.all(initialized_only=True):
        BaseDatabaseWrapper.close(connection)


async def end_threads():
    """As at the end of a server's event loop."""
    async with aclosing(threads.pool.until_the_loop_ends()) as end:
        await anext(end)


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    """The URL of a real Redis; skips where there is none."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def channel_layer(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture
async def asgi():
    """A client of the application as a server runs it: each request with a thread of its own, which Django's
    async client does not give."""
    from config.asgi import application

    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as client:
        yield client


@pytest.fixture(scope="session")
def collected(tmp_path_factory):
    """collectstatic for real, with the list of names in a directory of the tests' own."""
    from django.core.files.storage import FileSystemStorage
    from django.core.management import call_command
    from django.test import override_settings

    root = tmp_path_factory.mktemp("static")
    storages = {
        **django_settings.STORAGES,
        "staticfiles": {
            **HASHED,
            "OPTIONS": {"manifest_storage": FileSystemStorage(tmp_path_factory.mktemp("release"))},
        },
    }
    with override_settings(STATIC_ROOT=root, STORAGES=storages):
        call_command("collectstatic", interactive=False, verbosity=0)
        yield root
