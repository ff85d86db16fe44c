import asyncio
import logging
import re

import pytest
from asgi_scope import http_scope
from asgiref.sync import SyncToAsync
from core.middleware import RequestIDFilter, request_id
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import sync_only_middleware

OURS = "core.middleware.RequestMiddleware"
POLICY = "core.middleware.ContentSecurityPolicyMiddleware"
logger = logging.getLogger("app.test")


def sync_view(request):
    logger.warning("in the view")
    return HttpResponse(request.id)


async def async_view(request):
    await asyncio.sleep(0)
    logger.warning("in the view")
    return HttpResponse(request.id)


async def plain(request):
    return HttpResponse()


async def measured(request):
    return HttpResponse(headers={"Server-Timing": "db;dur=1.5"})


async def sandboxed(request):
    return HttpResponse(headers={"Content-Security-Policy": "sandbox"})


def broken(request):
    raise RuntimeError("broken")


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("plain", plain),
    path("measured", measured),
    path("sandboxed", sandboxed),
    path("broken", broken),
]


@sync_only_middleware
def sync_only(get_response):
    return get_response


@pytest.fixture(autouse=True)
def only_ours(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [OURS]


async def get(url, server, **kwargs):
    if server == "asgi":
        return await AsyncClient().get(url, **kwargs)
    return await asyncio.to_thread(Client().get, url, **kwargs)


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
@pytest.mark.parametrize("view", ["sync", "async"])
async def test_each_request_has_an_id_in_its_answer_and_its_log(server, view, caplog, monkeypatch):
    monkeypatch.setattr(caplog.handler, "filters", [RequestIDFilter()])
    first, second = [await get(f"/{view}", server) for _ in range(2)]
    assert re.fullmatch(r"[0-9a-f]{32}", first["X-Request-ID"])
    assert first["X-Request-ID"] != second["X-Request-ID"]
    assert first.content.decode() == first["X-Request-ID"]
    assert [record.request_id for record in caplog.records] == [first["X-Request-ID"], second["X-Request-ID"]]
    assert request_id.get() == "-"


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
async def test_the_time_is_told_in_both_forms_and_agrees(server):
    response = await get("/plain", server)
    assert re.fullmatch(r"\d+\.\d", response["X-Elapsed-Ms"])
    assert response["Server-Timing"] == f"app;dur={response['X-Elapsed-Ms']}"


async def test_what_a_view_measured_stays():
    response = await AsyncClient().get("/measured")
    assert re.fullmatch(r"db;dur=1\.5, app;dur=\d+\.\d", response["Server-Timing"])


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("brought", "kept"),
    [
        ("from-the-edge.0001", True),
        ("x" * 65, False),
        ("short", False),
        ("two words here", False),
        ("ä" * 10, False),
    ],
)
async def test_an_id_that_is_brought_is_kept_unless_it_could_forge_a_log_line(server, brought, kept):
    response = await get("/plain", server, headers={"x-request-id": brought})
    assert (response["X-Request-ID"] == brought) is kept


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
@pytest.mark.parametrize(("url", "status"), [("/broken", 500), ("/nowhere", 404)])
async def test_what_django_logs_of_an_error_has_the_id_of_its_answer(
    server, url, status, caplog, monkeypatch
):
    monkeypatch.setattr(caplog.handler, "filters", [RequestIDFilter()])
    if server == "asgi":
        response = await AsyncClient(raise_request_exception=False).get(url)
    else:
        response = await asyncio.to_thread(Client(raise_request_exception=False).get, url)
    assert response.status_code == status
    ids = [record.request_id for record in caplog.records if record.name == "django.request"]
    assert ids == [response["X-Request-ID"]]


async def test_requests_at_the_same_time_keep_their_own_ids():
    responses = await asyncio.gather(*(AsyncClient().get("/async") for _ in range(20)))
    assert len({response["X-Request-ID"] for response in responses}) == 20
    assert all(response.content.decode() == response["X-Request-ID"] for response in responses)


@pytest.mark.parametrize("server", ["asgi", "wsgi"])
@pytest.mark.parametrize("url", ["/sync", "/async", "/nowhere"])
async def test_each_answer_says_that_nothing_inline_and_nothing_from_elsewhere_runs(server, url, settings):
    settings.MIDDLEWARE = [OURS, POLICY]
    policy = (await get(url, server))["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


async def test_a_stricter_policy_of_a_view_stays(settings):
    settings.MIDDLEWARE = [OURS, POLICY]
    assert (await get("/sandboxed", "asgi"))["Content-Security-Policy"] == "sandbox"


@pytest.fixture
def hops(settings, monkeypatch):
    """How often a request, handled as under an ASGI server, goes to a thread."""
    counted = []
    call = SyncToAsync.__call__

    async def counting(self, *args, **kwargs):
        counted.append(self.func)
        return await call(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", counting)

    async def count(*middleware):
        settings.MIDDLEWARE = middleware
        sent = []
        messages = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})

        async def send(message):
            sent.append(message)

        application = get_asgi_application()
        counted.clear()
        await application(http_scope("/plain"), messages.get, send)
        assert sent[0]["status"] == 200
        return len(counted)

    return count


async def test_they_add_no_hop_to_a_thread(hops):
    bare = await hops()
    assert await hops(OURS, POLICY) == bare
    # The day one of these fails, the count above proves nothing.
    assert await hops("django.middleware.common.CommonMiddleware") == bare + 2
    assert await hops(f"{__name__}.sync_only") > bare
