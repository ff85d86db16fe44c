"""Each endpoint as `async def` and as `def`, and those with rows on psycopg's own async pool as well."""

import itertools
import time

from django.contrib.auth.decorators import login_required
from django.core.cache import caches
from django.http import HttpResponse, HttpResponseForbidden, JsonResponse
from django.shortcuts import render
from posts.models import Post

from bench.project import calls, sql
from bench.project.names import AUTHOR, CACHED, CACHED_SECONDS, ROWS, VALUE

numbers = itertools.count()  # of the requests to blocking() in this process


def posts():
    found = Post.objects.filter(author__name=AUTHOR).select_related("author").prefetch_related("tags")
    return found.order_by("pk")[:ROWS]


def brief(post):
    return {"id": post.pk, "title": post.title, "body": post.body}


def whole(post):
    return brief(post) | {"author": post.author.name, "tags": [tag.name for tag in post.tags.all()]}


async def hello(request):
    return HttpResponse("hello")


async def row(request, pk):
    return JsonResponse(brief(await Post.objects.aget(pk=pk)))


async def rows(request):
    return JsonResponse({"posts": [whole(post) async for post in posts()]})


async def fanout(request):
    return JsonResponse({"celsius": await calls.together()})


async def session(request):
    user = await request.auser()
    if not user.is_authenticated:
        return HttpResponseForbidden()
    return render(request, "bench/page.html", {"user": user})


async def cache(request):
    """One aget(); only the first request stores the value."""
    found = await caches["default"].aget(CACHED)
    if found is None:
        found = VALUE
        await caches["default"].aset(CACHED, found, CACHED_SECONDS)
    return JsonResponse(found)


def blocking(request):
    """As a view that calls a slow server by a synchronous client; `def` for every contestant."""
    if next(numbers) % 10 == 0:
        time.sleep(1)
    return HttpResponse("hello")


def hello_def(request):
    return HttpResponse("hello")


def row_def(request, pk):
    return JsonResponse(brief(Post.objects.get(pk=pk)))


def rows_def(request):
    return JsonResponse({"posts": [whole(post) for post in posts()]})


def fanout_def(request):
    return JsonResponse({"celsius": calls.one_after_another()})


@login_required
def session_def(request):
    return render(request, "bench/page.html", {"user": request.user})


def cache_def(request):
    found = caches["default"].get(CACHED)
    if found is None:
        found = VALUE
        caches["default"].set(CACHED, found, CACHED_SECONDS)
    return JsonResponse(found)


async def row_asyncdb(request, pk):
    from pergola_runtime.asyncdb import connection

    async with connection() as own:
        return JsonResponse(await sql.one(own, pk))


async def rows_asyncdb(request):
    from pergola_runtime.asyncdb import connection

    async with connection() as own:
        return JsonResponse(await sql.many(own))
