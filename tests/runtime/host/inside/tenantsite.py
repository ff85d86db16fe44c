"""A project of django-tenants, as its documentation sets it up, with two tenants.

`/plain`, `/stream`, `/synchronous`: the tenants of the rows that the request read, which must all be that of
its host. `/task` starts a task that reads rows after its request has ended, `/tasks` says what they read.
"""

import asyncio
import os
import random
import sys

from asgiref.sync import sync_to_async
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

TENANTS = ("first", "second")
ROWS = 5

SECRET_KEY = "tenantsite"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "tenants"]
TENANT_APPS = ["tenants"]
INSTALLED_APPS = SHARED_APPS
TENANT_MODEL = "tenants.Tenant"
TENANT_DOMAIN_MODEL = "tenants.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": os.environ.get("LEAN_HOST", ""),
        "PORT": os.environ.get("LEAN_PORT", ""),
        "NAME": os.environ.get("LEAN_NAME", "postgres"),
        "USER": "test",
    }
}


def prepare():
    """Make the tables, and the rows of each tenant and of the public schema."""
    import django

    django.setup()
    from django.db import connection
    from django_tenants.utils import schema_context
    from tenants.models import Domain, Row, Tenant

    with connection.schema_editor() as editor:
        for model in (Tenant, Domain):
            editor.create_model(model)
    for name in ("public", *TENANTS):
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
        with schema_context(name):
            with connection.schema_editor() as editor:
                editor.create_model(Row)
            Row.objects.bulk_create(Row(tenant=name) for _ in range(ROWS))
    for name in TENANTS:
        tenant = Tenant(schema_name=name)
        tenant.auto_create_schema = False
        tenant.save()
        Domain.objects.create(tenant=tenant, domain=f"{name}.example.org", is_primary=True)


def found():
    from tenants.models import Row

    return [row.tenant for row in Row.objects.all()]


async def read():
    from tenants.models import Row

    await asyncio.sleep(random.random() / 20)
    return [row.tenant async for row in Row.objects.all()]


async def plain(request):
    return HttpResponse(" ".join(await read()))


async def stream(request):
    async def parts():
        for _ in range(5):
            yield " ".join(await read()) + " "

    return StreamingHttpResponse(parts())


def synchronous(request):
    return HttpResponse(" ".join(found()))


running, told = set(), []


async def task(request):
    own = request.tenant.schema_name

    def read_and_close():
        """Nothing else closes what a task opens under Django's handler (docs/async-django.md)."""
        from django.db import connection

        try:
            return ",".join(found())
        finally:
            connection.close()

    async def later():
        await asyncio.sleep(0.1)
        told.append(f"{own}:{await sync_to_async(read_and_close)()}")

    one = asyncio.create_task(later())
    running.add(one)
    one.add_done_callback(running.discard)
    return HttpResponse("started")


async def tasks(request):
    return HttpResponse(" ".join(told))


urlpatterns = [path(view.__name__, view) for view in (plain, stream, synchronous, task, tasks)]


def __getattr__(name):
    """The application is made at the first look at it: these are also the settings."""
    if name == "application":
        from django.core.asgi import get_asgi_application

        return get_asgi_application()
    raise AttributeError(name)


if __name__ == "__main__":
    sys.modules["tenantsite"] = sys.modules[__name__]
    prepare()
