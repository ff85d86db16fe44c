"""A Django project that an agent reports on: its settings, views and the agents' setup are in here alone.

AGENT in the environment names the agent, COLLECTOR is the URL that it sends to. The application is
`agentsite:application`; it answers `/flush` itself, after the agent has sent all that it holds.
"""

import asyncio
import logging
import os
import threading
import urllib.request
from collections import defaultdict
from contextvars import ContextVar

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.dispatch import Signal
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

COLLECTOR = os.environ.get("COLLECTOR", "")
SECRET_KEY = "agentsite"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
USE_TZ = True
SYNCHRONOUS = "agentsite.synchronous"
MIDDLEWARE = [
    "agentsite.Hybrid",
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
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"page.html": "{{ request.path }}"})]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("LEAN_HOST", ""),
        "PORT": os.environ.get("LEAN_PORT", ""),
        "NAME": "postgres",
        "USER": "test",
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}
ELASTIC_APM = {
    "SERVICE_NAME": "agentsite",
    "SERVER_URL": COLLECTOR,
    "CENTRAL_CONFIG": False,
    "CLOUD_PROVIDER": "none",
    "METRICS_INTERVAL": "0ms",
    "CAPTURE_BODY": "all",
    # These depend on how long a span takes.
    "SPAN_COMPRESSION_ENABLED": False,
    "SPAN_STACK_TRACE_MIN_DURATION": -1,
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None
logger = logging.getLogger("agentsite")


class Agent:
    """No agent. The others override what they have a notion of."""

    def set_up(self):
        """Where the documentation of the agent says, in the settings."""

    def instrument(self):
        """With the settings loaded, before the application is made."""

    def wrap(self, application):
        return application

    def set_user(self, name):
        pass

    def set_tag(self, name, value):
        pass

    def add_breadcrumb(self, text):
        pass

    def send_message(self, text):
        pass

    def flush(self):
        pass


class Sentry(Agent):
    def set_up(self):
        import sentry_sdk
        from sentry_sdk.integrations.django import DjangoIntegration

        self.sdk = sentry_sdk
        sentry_sdk.init(
            dsn=COLLECTOR.replace("://", "://key@") + "/1",
            integrations=[DjangoIntegration(middleware_spans=True, signals_spans=True, cache_spans=True)],
            release="agentsite@1",  # without it no sessions are reported
            traces_sample_rate=1.0,
            send_default_pii=True,
            max_request_body_size="always",
            db_query_source_threshold_ms=0,
            transport_queue_size=1000,
            # An installed package is excluded by its path; these tests import the runtime from a directory.
            in_app_exclude=["pergola_runtime"],
        )

    def set_user(self, name):
        self.sdk.set_user({"id": name, "username": name})

    def set_tag(self, name, value):
        self.sdk.set_tag(name, value)

    def add_breadcrumb(self, text):
        self.sdk.add_breadcrumb(message=text)

    def send_message(self, text):
        self.sdk.capture_message(text)

    def flush(self):
        self.sdk.get_client().session_flusher.flush()
        self.sdk.flush(10)


class OpenTelemetry(Agent):
    def set_up(self):
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.trace = trace
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{COLLECTOR}/v1/traces")))
        trace.set_tracer_provider(provider)
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{COLLECTOR}/v1/metrics"), float("inf"))
        metrics.set_meter_provider(MeterProvider([reader]))
        self.metrics = metrics

    def instrument(self):
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor

        DjangoInstrumentor().instrument()
        PsycopgInstrumentor().instrument()

    def wrap(self, application):
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(application)

    def set_user(self, name):
        self.set_tag("enduser.id", name)

    def set_tag(self, name, value):
        self.trace.get_current_span().set_attribute(name, value)

    def add_breadcrumb(self, text):
        self.trace.get_current_span().add_event(text)

    def send_message(self, text):
        with self.trace.get_tracer(__name__).start_as_current_span(text):
            pass

    def flush(self):
        self.trace.get_tracer_provider().force_flush()
        self.metrics.get_meter_provider().force_flush()


class Elastic(Agent):
    def set_up(self):
        import elasticapm

        self.apm = elasticapm
        INSTALLED_APPS.append("elasticapm.contrib.django")

    def wrap(self, application):
        """Without it the agent reports no transaction: the signal at a request's start is sent in a task."""
        from elasticapm.contrib.asgi import ASGITracingMiddleware

        return ASGITracingMiddleware(application)

    def set_user(self, name):
        self.apm.set_user_context(username=name, user_id=name)

    def set_tag(self, name, value):
        self.apm.label(**{name: value})

    def add_breadcrumb(self, text):
        with self.apm.capture_span(text):
            pass

    def send_message(self, text):
        self.apm.get_client().capture_message(text)

    def flush(self):
        # Both its flush() and its close() return as soon as any flush ends, also one that was under way.
        transport = self.apm.get_client()._transport
        transport.close()
        transport._thread.join(30)


class NewRelic(Agent):
    """Started by newrelic-admin, as its documentation says. In developer mode it sends nothing."""

    def set_up(self):
        import newrelic.agent
        from newrelic.common import agent_http

        self.agent = newrelic.agent
        send = agent_http.DeveloperModeClient.send_request

        def send_to_collector(client, method="POST", path="", params=None, headers=None, payload=None):
            send_json(f"/{params['method']}", payload)
            return send(client, method, path, params, headers, payload)

        agent_http.DeveloperModeClient.send_request = send_to_collector

    def instrument(self):
        self.agent.register_application(timeout=30)

    def set_user(self, name):
        self.agent.set_user_id(name)

    def set_tag(self, name, value):
        self.agent.add_custom_attribute(name, value)

    def add_breadcrumb(self, text):
        self.agent.record_custom_event("breadcrumb", {"text": text})

    def send_message(self, text):
        self.agent.record_custom_event("message", {"text": text}, self.agent.application())

    def flush(self):
        self.agent.shutdown_agent(20)


AGENTS = {
    "sentry": Sentry,
    "opentelemetry": OpenTelemetry,
    "elastic": Elastic,
    "newrelic": NewRelic,
}


def send_json(path, data):
    request = urllib.request.Request(COLLECTOR + path, data, {"Content-Type": "application/json"})  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310 - the test's own collector


agent = AGENTS.get(os.environ.get("AGENT"), Agent)()
agent.set_up()

# Middleware. It, the views and what they call note which values of `holder` they see.

holder = ContextVar("holder", default=None)
seen = defaultdict(list)  # by the `who` of a request: (place, value) in the order of the calls


def look(request, place):
    """Note the value that is seen here, and set the request's own."""
    who = request.GET.get("who")
    if who:
        seen[who].append((place, holder.get()))
        holder.set(who)


class Hybrid:
    """Both synchronous and asynchronous, as Django's own."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        if iscoroutinefunction(self):
            return self.__acall__(request)
        look(request, "hybrid middleware")
        return self.get_response(request)

    async def __acall__(self, request):
        look(request, "hybrid middleware")
        return await self.get_response(request)


def synchronous(get_response):
    def middleware(request):
        look(request, "synchronous middleware")
        response = get_response(request)
        look(request, "synchronous middleware, with the response")
        return response

    return middleware


# Signals.

notified = Signal()


def receive(sender, request, **kwargs):
    look(request, "receiver")
    users().exists()


async def areceive(sender, request, **kwargs):
    look(request, "asynchronous receiver")
    await users().aexists()


notified.connect(receive)
notified.connect(areceive)


# Views.


def users():
    from django.contrib.auth.models import User

    return User.objects.filter(username__startswith="user")


def run_cursor():
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT username FROM auth_user WHERE username = %s", ["user1"])
        cursor.fetchall()
        cursor.executemany("UPDATE auth_user SET first_name = %s WHERE username = %s", [["", "nouser"]] * 2)


async def plain(request):
    return HttpResponse("plain")


def sync_plain(request):
    return HttpResponse("plain")


async def queries(request):
    look(request, "view")
    names = [user.username async for user in users().order_by("username")]
    assert await users().acount() == len(names)
    assert await users().filter(username="user1").aexists()
    await users().order_by("username").afirst()
    await users().aget(username="user1")
    await users().filter(username="nouser").aupdate(first_name="")
    return JsonResponse(names, safe=False)


def sync_queries(request):
    from django.db import transaction

    look(request, "view")
    with transaction.atomic():
        names = [user.username for user in users().select_for_update().order_by("username")]
    assert users().count() == len(names)
    return JsonResponse(names, safe=False)


async def cursors(request):
    look(request, "view")
    await sync_to_async(run_cursor)()
    return HttpResponse("run")


def sync_cursors(request):
    look(request, "view")
    run_cursor()
    return HttpResponse("run")


async def threads(request):
    """Each way to a thread and back."""

    def work(place):
        look(request, place)
        users().exists()

    async def nested():
        look(request, "nested")
        await users().aexists()

    look(request, "view")
    await sync_to_async(work)("sync_to_async")
    await sync_to_async(async_to_sync(nested))()
    await asyncio.gather(sync_to_async(work)("gather"), users().aexists())
    await asyncio.to_thread(look, request, "to_thread")
    await sync_to_async(look, thread_sensitive=False)(request, "not thread-sensitive")
    return HttpResponse("worked")


def sync_threads(request):
    async def nested():
        look(request, "nested")
        await sync_to_async(look)(request, "sync_to_async")
        await users().aexists()

    look(request, "view")
    async_to_sync(nested)()
    return HttpResponse("worked")


async def missing(request):
    raise Http404("no such page")


async def fails(request):
    await users().aexists()
    raise ValueError("raised by an asynchronous view")


def sync_fails(request):
    users().exists()
    raise ValueError("raised by a synchronous view")


async def logs(request):
    logger.warning("a warning")
    logger.error("logged by %s", "an asynchronous view")
    return HttpResponse("logged")


def sync_logs(request):
    logger.warning("a warning")
    logger.error("logged by %s", "a synchronous view")
    return HttpResponse("logged")


async def stream(request):
    look(request, "view")

    async def parts():
        look(request, "stream")
        for number in range(3):
            await users().aexists()
            await asyncio.sleep(0)
            look(request, "stream")
            yield f"{number} "

    return StreamingHttpResponse(parts())


def sync_stream(request):
    look(request, "view")

    def parts():
        for number in range(3):
            look(request, "stream")
            users().exists()
            yield f"{number} "

    return StreamingHttpResponse(parts())


async def stream_fails(request):
    async def parts():
        yield "a part"
        await users().aexists()
        raise ValueError("raised by a stream")

    return StreamingHttpResponse(parts())


async def page(request):
    from django.template.response import TemplateResponse

    return TemplateResponse(request, "page.html")


def sync_page(request):
    from django.shortcuts import render

    return render(request, "page.html")


async def cached(request):
    from django.core.cache import cache

    await cache.aset("n", 1)
    return HttpResponse(str(await cache.aget("n")))


async def form(request):
    return HttpResponse(f"{sorted(request.POST)} {sorted(request.FILES)}")


form.csrf_exempt = True


async def signals(request):
    await notified.asend(plain, request=request)
    await notified.asend_robust(plain, request=request)
    return HttpResponse("sent")


def sync_signals(request):
    notified.send(plain, request=request)
    notified.send_robust(plain, request=request)
    return HttpResponse("sent")


def login(request):
    from django.contrib import auth

    user = users().get(username=request.GET["name"])
    auth.login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("logged in")


async def fails_for_user(request):
    await request.auser()
    raise ValueError("raised for the user of a session")


def sync_fails_for_user(request):
    raise ValueError(f"raised for {request.user.get_username()}")


# Requests that run at the same time: each waits at these until as many as it names are there.


class Meetings:
    def __init__(self):
        self.lock = threading.Lock()
        self.barriers = {}

    def wait(self, name, number):
        with self.lock:
            barrier = self.barriers.setdefault(name, threading.Barrier(number))
        barrier.wait(20)

    async def await_(self, name, number):
        arrived, everyone = self.barriers.setdefault(name, ([], asyncio.Event()))
        arrived.append(name)
        if len(arrived) == number:
            everyone.set()
        async with asyncio.timeout(20):
            await everyone.wait()


meetings = Meetings()


def identify(who):
    agent.set_user(who)
    agent.set_tag("who", who)
    agent.add_breadcrumb(f"breadcrumb of {who}")


async def together(request):
    who, group, number = request.GET["who"], request.GET["group"], int(request.GET["number"])
    look(request, "view")
    identify(who)
    await meetings.await_(f"{group} 1", number)
    look(request, "view, again")
    await users().aexists()
    await meetings.await_(f"{group} 2", number)
    agent.add_breadcrumb(f"second breadcrumb of {who}")
    if "fails" in request.GET:
        raise ValueError(f"raised for {who}")
    return HttpResponse(who)


def sync_together(request):
    who, group, number = request.GET["who"], request.GET["group"], int(request.GET["number"])
    look(request, "view")
    identify(who)
    meetings.wait(f"{group} 1", number)
    look(request, "view, again")
    users().exists()
    meetings.wait(f"{group} 2", number)
    agent.add_breadcrumb(f"second breadcrumb of {who}")
    if "fails" in request.GET:
        raise ValueError(f"raised for {who}")
    return HttpResponse(who)


# Tasks that outlive their request.

tasks = set()


async def background(request):
    who = request.GET.get("who", "background")

    async def work():
        await request.scope["ended"]
        look(request, "background task")
        try:
            await users().aexists()
            await sync_to_async(look)(request, "background task, in a thread")
        except RuntimeError as error:  # asgiref's, where the thread of a synchronous middleware has ended
            agent.send_message(str(error))
        agent.send_message(f"message of the task of {who}")

    identify(who)
    look(request, "view")
    tasks.add(asyncio.create_task(work()))
    return HttpResponse("started")


async def report(request):
    """What was seen so far, once the tasks that run in the background have ended."""
    await asyncio.gather(*tasks)
    return JsonResponse(seen)


pages = [
    path(view.__name__, view)
    for view in (
        plain, sync_plain, queries, sync_queries, cursors, sync_cursors, threads, sync_threads, missing,
        fails, sync_fails, logs, sync_logs, stream, sync_stream, stream_fails, page, sync_page, cached, form,
        signals, sync_signals, login, fails_for_user, sync_fails_for_user, together, sync_together,
        background, report,
    )
]  # fmt: skip
pages += [path("anonymous", fails), path("sync_anonymous", sync_fails)]
urlpatterns = [*pages, path("below-synchronous/", include(pages))]


def get_application():
    """Dispatches to two of Django's applications, of which one has a synchronous-only middleware."""
    from django.conf import settings
    from pergola_runtime.choice import get_asgi_application

    settings.DEBUG  # noqa: B018 - loads the settings
    agent.instrument()
    plainly = agent.wrap(get_asgi_application())
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, SYNCHRONOUS]
    below_synchronous = agent.wrap(get_asgi_application())
    under_way = set()

    async def application(scope, receive, send):
        if scope["path"] == "/flush":
            await asyncio.gather(*tasks, *under_way)
            await asyncio.to_thread(agent.flush)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"sent"})
            return
        ended = scope["ended"] = asyncio.get_running_loop().create_future()
        under_way.add(ended)
        try:
            chosen = below_synchronous if scope["path"].startswith("/below-synchronous/") else plainly
            await chosen(scope, receive, send)
        finally:
            ended.set_result(None)
            under_way.discard(ended)

    return application


def __getattr__(name):
    """The application is made at the first look at it: these are also the settings."""
    if name == "application":
        return get_application()
    raise AttributeError(name)
