"""A site with an agent that reports it: AGENT in the environment says which, COLLECTOR where to."""

import os
import sys
from contextvars import ContextVar

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

AGENT = os.environ.get("AGENT")
COLLECTOR = os.environ.get("COLLECTOR")
SECRET_KEY = "agentsite"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
USE_TZ = True
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("AGENT_DATABASE", ":memory:")}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if AGENT == "sentry":
    import sentry_sdk

    sentry_sdk.init(
        dsn=COLLECTOR.replace("://", "://key@") + "/1",
        traces_sample_rate=1.0,
        send_default_pii=True,
        auto_session_tracking=True,
        default_integrations=True,
    )
elif AGENT == "opentelemetry":
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{COLLECTOR}/v1/traces")))
    trace.set_tracer_provider(provider)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)
    if not getattr(sys, "agentsite_instrumented", False):
        sys.agentsite_instrumented = True
        DjangoInstrumentor().instrument()
elif AGENT == "elastic":
    INSTALLED_APPS += ["elasticapm.contrib.django"]
    MIDDLEWARE = ["elasticapm.contrib.django.middleware.TracingMiddleware", *MIDDLEWARE]
    ELASTIC_APM = {
        "SERVICE_NAME": "agentsite",
        "SERVER_URL": COLLECTOR,
        "METRICS_INTERVAL": "0",
        "CENTRAL_CONFIG": False,
        "CLOUD_PROVIDER": "none",
        "API_REQUEST_TIME": "500ms",
        "TRANSACTION_SAMPLE_RATE": 1.0,
        "DEBUG": True,
    }

seen = ContextVar("seen", default=None)


def tag(who):
    if AGENT == "sentry":
        import sentry_sdk

        sentry_sdk.set_user({"id": who})
        sentry_sdk.set_tag("who", who)
        sentry_sdk.add_breadcrumb(message=f"breadcrumb of {who}")
    elif AGENT == "elastic":
        import elasticapm

        elasticapm.set_user_context(username=who, user_id=who)
        elasticapm.label(who=who)
    elif AGENT == "opentelemetry":
        from opentelemetry import trace

        trace.get_current_span().set_attribute("who", who)


def query():
    from django.contrib.auth.models import User

    return User.objects.filter(username="nobody").exists()


async def hello(request):
    return HttpResponse("hello")


def tagged(request):
    tag(request.GET["who"])
    query()
    return HttpResponse(request.GET["who"])


async def atagged(request):
    from django.contrib.auth.models import User

    tag(request.GET["who"])
    await User.objects.filter(username="nobody").aexists()
    return HttpResponse(request.GET["who"])


def fails(request):
    query()
    raise ValueError("by a def view")


async def afails(request):
    raise ValueError("by an async view")


async def streams(request):
    tag("stream")

    async def parts():
        from django.contrib.auth.models import User

        for number in range(3):
            await User.objects.filter(username="nobody").aexists()
            yield f"{number} "

    return StreamingHttpResponse(parts())


async def variable(request):
    found = seen.get()
    seen.set(request.GET.get("who"))
    return HttpResponse(str(found))


urlpatterns = [
    path("hello", hello),
    path("tagged", tagged),
    path("atagged", atagged),
    path("fails", fails),
    path("afails", afails),
    path("streams", streams),
    path("variable", variable),
]


def get_application():
    if "DJANGO_SETTINGS_MODULE" not in os.environ:
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    from pergola_runtime.handler import get_asgi_application

    application = get_asgi_application()
    if AGENT == "opentelemetry":
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        application = OpenTelemetryMiddleware(application)
    return application
