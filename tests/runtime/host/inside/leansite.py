"""A Django project with a page for each way to answer. Its settings, URLs and views are in here alone."""

import asyncio
import copy
import os
import tempfile
import threading

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.middleware.common import CommonMiddleware
from django.urls import path
from django.utils.deprecation import MiddlewareMixin

SECRET_KEY = "for the tests alone"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = os.environ.get("LEAN_URLS", "leansite")
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("LEAN_HOST", ""),
        "PORT": os.environ.get("LEAN_PORT", ""),
        "NAME": os.environ.get("LEAN_NAME", "postgres"),
        "USER": "test",
        "CONN_MAX_AGE": int(os.environ.get("LEAN_AGE", "10")),
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LANGUAGES = [("en", "English"), ("ko", "Korean")]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
LOGGING_CONFIG = None
DEFAULT_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
MIDDLEWARE = DEFAULT_MIDDLEWARE

# What ran where, for the test to read.
ran = []


def mark(what):
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        ran.append((what, threading.get_ident()))
    else:
        ran.append((what, "loop"))


# Middleware of a project's own.


class Mixed(MiddlewareMixin):
    def process_request(self, request):
        mark("Mixed.process_request")

    def process_view(self, request, view, args, kwargs):
        mark("Mixed.process_view")
        if "mixed" in request.GET:
            return HttpResponse("from process_view")
        return None

    def process_template_response(self, request, response):
        mark("Mixed.process_template_response")
        return response

    def process_exception(self, request, error):
        mark("Mixed.process_exception")
        if "rescued" in str(error):
            return HttpResponse("rescued", status=418)
        return None

    def process_response(self, request, response):
        mark("Mixed.process_response")
        response["X-Mixed"] = "1"
        return response


class Ordered:
    """Looks where it stands, as one that must be behind another does."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        from django.conf import settings

        for name in DEFAULT_MIDDLEWARE:
            assert settings.MIDDLEWARE.index(name) < settings.MIDDLEWARE.index("leansite.Ordered")
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        return self.get_response(request)


class Hosts(list):
    """As of a project whose tenants stand in its database."""

    def __iter__(self):
        from django.contrib.auth.models import User

        mark("hosts")
        User.objects.count()
        return super().__iter__()


class OwnCommon(CommonMiddleware):
    pass


def synchronous(get_response):
    def middleware(request):
        mark("synchronous in")
        response = get_response(request)
        mark("synchronous out")
        return response

    return middleware


class Both:
    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request):
        mark("Both in")
        response = await self.get_response(request)
        mark("Both out")
        return response


def raising(get_response):
    def middleware(request):
        if "middleware" in request.GET:
            raise ValueError("from a middleware")
        return get_response(request)

    return middleware


# Views.


async def hello(request):
    mark("view")
    return HttpResponse(f"hello {request.GET.get('name', '')}")


def sync_hello(request):
    mark("view")
    return HttpResponse("hello")


async def count(request):
    mark("view")
    await request.session.aset("n", (await request.session.aget("n", 0)) + 1)
    return HttpResponse(str(await request.session.aget("n")))


def sync_count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


async def forget(request):
    await request.session.aflush()
    return HttpResponse("gone")


async def expiring(request):
    await request.session.aset_expiry(60)
    await request.session.aset("n", 1)
    return HttpResponse("for a minute")


async def interrupted(request):
    """Its session goes while it is under way."""
    from django.contrib.sessions.models import Session

    await request.session.aset("n", 2)
    await Session.objects.all().adelete()
    return HttpResponse("saved")


def login(request):
    from django.contrib import auth
    from django.contrib.auth.models import User

    user, _ = User.objects.get_or_create(username="lee")
    auth.login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponseRedirect("/who")


async def who(request):
    user = await request.auser()
    return HttpResponse(user.get_username() or "nobody")


def sync_who(request):
    return HttpResponse(request.user.get_username() or "nobody")


async def say(request):
    from django.contrib import messages

    messages.info(request, "said")
    return HttpResponseRedirect("/heard")


def heard(request):
    from django.contrib import messages

    return HttpResponse(",".join(map(str, messages.get_messages(request))) or "nothing")


def copied(request):
    """As inertia-django makes a request of its own class, and as others pass on a copy."""
    from django.contrib import messages

    other = HttpRequest()
    vars(other).update(vars(request))
    copy_of_it = copy.copy(request)
    messages.info(copy_of_it, "said to a copy")
    same = (other.user is request.user, copy_of_it.user is request.user)
    return HttpResponse(f"{other.user.get_username()} {same} {list(map(str, messages.get_messages(other)))}")


def deleted(request):
    del request.user, request._messages
    return HttpResponse(f"{hasattr(request, 'user')} {hasattr(request, '_messages')}")


async def form(request):
    from django.middleware.csrf import get_token

    if request.method == "POST":
        files = {name: one.size for name, one in request.FILES.items()}
        return HttpResponse(
            f"{dict(request.POST)} {files}".replace(request.POST.get("csrfmiddlewaretoken", "-"), "")
        )
    return HttpResponse(get_token(request))


async def body(request):
    return HttpResponse(str(len(request.body)))


body.csrf_exempt = True


async def large(request):
    return HttpResponse("many words " * 10000)


async def page(request):
    from django.template import engines
    from django.template.response import TemplateResponse

    return TemplateResponse(request, engines["django"].from_string("{{ request.path }} {{ LANGUAGE_CODE }}"))


async def language(request):
    from django.utils.translation import get_language

    return HttpResponse(get_language())


async def missing(request):
    raise Http404("nothing here")


async def denied(request):
    from django.core.exceptions import PermissionDenied

    raise PermissionDenied


async def suspicious(request):
    from django.core.exceptions import SuspiciousOperation

    raise SuspiciousOperation("odd")


async def fails(request):
    raise ValueError(request.GET.get("why", "just so"))


def sync_fails(request):
    raise ValueError(request.GET.get("why", "just so"))


async def nothing(request):
    return None


async def stream(request):
    async def parts():
        for n in range(3):
            await asyncio.sleep(0)
            yield f"{n} "

    return StreamingHttpResponse(parts())


def sync_stream(request):
    return StreamingHttpResponse(iter(["a ", "b ", "c "]))


def sent_file(request):
    file = tempfile.TemporaryFile()  # noqa: SIM115 - Django closes it
    file.write(b"x" * 200000)
    file.seek(0)
    return FileResponse(file, filename="x.bin", content_type="application/octet-stream")


async def closers(request):
    response = HttpResponse("closes")
    response._resource_closers.append(lambda: mark("closed"))
    return response


async def closed(request):
    response = HttpResponse("closed")
    close = response.close

    def closes():
        mark("closed")
        close()

    response.close = closes
    return response


async def cookies(request):
    response = HttpResponse(str(sorted(request.COOKIES)))
    response.set_cookie("one", "1", max_age=60)
    response.set_cookie("two", "2", httponly=True, samesite="Strict")
    return response


async def rows(request):
    """Several calls, some at once and some within others."""
    from django.contrib.auth.models import User

    def backend(what):
        from django.db import connection

        mark(what)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    def nested():
        mark("nested")
        return async_to_sync(sync_to_async(backend))("within")

    pids = await asyncio.gather(*(sync_to_async(backend)(f"call {n}") for n in range(3)))
    pids += [await sync_to_async(nested)()]
    await User.objects.acount()
    async for _ in User.objects.all():
        pass
    return HttpResponse(str(len(set(pids))))


async def cached(request):
    from django.core.cache import cache

    await cache.aset("n", 1)
    return HttpResponse(str(await cache.aget("n")))


urlpatterns = [
    path(view.__name__, view)
    for view in (
        hello, sync_hello, count, sync_count, forget, expiring, interrupted, login, who, sync_who, say, heard,
        form, body, large, page, language, missing, denied, suspicious, fails, sync_fails, nothing, stream,
        sync_stream, sent_file, closers, closed, cookies, rows, cached, copied, deleted,
    )
] + [path("slash/", hello)]  # fmt: skip
