"""SynchronousOnlyOperation, and the way around it. The page shows these functions as they stand here."""

import inspect

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission
from django.core.exceptions import SynchronousOnlyOperation


async def sync_query(request):
    return str(Permission.objects.order_by("pk").first().codename)


async def async_query(request):
    permission = await Permission.objects.order_by("pk").afirst()
    return permission.codename


async def sync_iteration(request):
    return ", ".join(permission.codename for permission in Permission.objects.order_by("pk")[:3])


async def async_iteration(request):
    return ", ".join([permission.codename async for permission in Permission.objects.order_by("pk")[:3]])


async def lazy_foreign_key(request):
    permission = await Permission.objects.order_by("pk").afirst()
    return permission.content_type.model


async def selected_foreign_key(request):
    permission = await Permission.objects.select_related("content_type").order_by("pk").afirst()
    return permission.content_type.model


async def foreign_key_in_thread(request):
    """Where the query is not ours to change."""
    permission = await Permission.objects.order_by("pk").afirst()
    content_type = await sync_to_async(lambda: permission.content_type)()
    return content_type.model


async def lazy_user(request):
    return f"user {request.user.id}"


async def awaited_user(request):
    user = await request.auser()
    return f"user {user.id}"


TRAPS = [
    ("A query", sync_query, [async_query]),
    ("A loop over a queryset", sync_iteration, [async_iteration]),
    ("A foreign key read later", lazy_foreign_key, [selected_foreign_key, foreign_key_in_thread]),
    ("The user of the request", lazy_user, [awaited_user]),
]


async def outcome(function, request):
    result = {"name": function.__name__, "source": inspect.getsource(function)}
    try:
        return result | {"answer": await function(request)}
    except SynchronousOnlyOperation as error:
        return result | {"error": f"SynchronousOnlyOperation: {error}"}


async def all_outcomes(request):
    return [
        {
            "title": title,
            "failing": await outcome(failing, request),
            "mended": [await outcome(function, request) for function in mended],
        }
        for title, failing, mended in TRAPS
    ]
