"""What Django knows of a request is what it knows under uvicorn on TCP behind the same nginx."""

import http.client
import json
import socket
import ssl
from urllib.parse import urlsplit

import httpx
import pytest
from http3 import ask as ask_by_http_3
from infra.forged_headers import FORGED
from infra.nginx_tools import reload_nginx
from infra.tools import asked_by_itself, changed
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-metadata-*"]

# A project of one file, which answers with all that it knows. `events` sends one for each request for `more`.
PROJECT = """
import asyncio
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", MIDDLEWARE=[],
                   SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import re_path

def known(request):
    meta = {name: value for name, value in request.META.items() if isinstance(value, (str, int))}
    return JsonResponse(meta | {
        "host": request.get_host(), "port": request.get_port(), "scheme": request.scheme,
        "secure": request.is_secure(), "url": request.build_absolute_uri("/there"),
        "body": request.body.decode(), "path": request.path, "user": None,
    })

wanted = asyncio.Semaphore(0)

async def events(request):
    async def parts():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await wanted.acquire()
    return StreamingHttpResponse(parts(), content_type="text/event-stream")

async def more(request):
    wanted.release()
    return HttpResponse()

urlpatterns = [re_path(".*/events$", events), re_path(".*/more$", more), re_path("", known)]
application = get_asgi_application()
"""
PLACE = "/run/test-metadata"
PORT = 18123
# as the site's own locations
LOCATIONS = f"""
location /by-unix {{
  include /etc/nginx/snippets/proxy.conf;
  proxy_pass http://unix:{PLACE}/web.sock;
}}
location /by-tcp {{
  include /etc/nginx/snippets/proxy.conf;
  proxy_pass http://127.0.0.1:{PORT};
}}
"""
PATHS = ("/by-unix", "/by-tcp")
# a backend on TCP has its own name and port
OF_THE_SERVER = {"SERVER_NAME", "SERVER_PORT", "port"}


@pytest.fixture
def both(host, settings):
    """Both servers behind the site's own nginx."""
    python = f"{settings['app_home']}/live/venv/bin/python"
    run = f"systemd-run --quiet --collect --working-directory={PLACE} --setenv=PYTHONPATH={PLACE}"
    host.check_output(f"mkdir -p {PLACE} && chmod 755 {PLACE} && printf '%%s' %s > {PLACE}/known.py", PROJECT)
    host.check_output(
        f"{run} --unit=test-metadata-unix --setenv=PERGOLA_APPLICATION=known:application"
        f" {python} -m gunicorn pergola_runtime.serving:application --umask 0"
        f" -k pergola_runtime.gunicorn.DrainingUvicornWorker --bind unix:{PLACE}/web.sock --no-control-socket"
    )
    host.check_output(
        f"{run} --unit=test-metadata-tcp {python} -m uvicorn known:application --port {PORT} --lifespan off"
        " --forwarded-allow-ips '*'"
    )
    media = "/etc/nginx/snippets/media.conf"
    try:
        wait_until(lambda: host.run(f"test -S {PLACE}/web.sock").rc == 0, "gunicorn to listen")
        wait_until(lambda: host.socket(f"tcp://127.0.0.1:{PORT}").is_listening, "uvicorn to listen")
        with changed(host, media, f"cat >> {media} <<'END'\n{LOCATIONS}\nEND"):
            reload_nginx(host)

            def served():
                return {asked_by_itself(host, settings, path)[0][0] for path in PATHS} == {200}

            wait_until(served, "both servers to answer")
            yield
    finally:
        host.run(f"systemctl stop 'test-metadata-*'; rm -rf {PLACE}")
        reload_nginx(host)


async def ask(settings, authority, version, path, headers):
    if version == "3":
        _, body = await ask_by_http_3(settings, authority, path, headers)
        return json.loads(body)
    context = ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(verify=context, http1=version == "1.1", http2=version == "2") as client:
        answer = await client.get(settings["site_url"] + path, headers=[*headers.items()])
        assert answer.status_code == 200, answer.text
        return answer.json()


async def test_both_know_the_same(settings, authority, both):
    place = urlsplit(settings["site_url"])
    headers = {"Accept-Language": "ko", "Cookie": "a=1; b=2", "User-Agent": "test"}
    for version in ("1.1", "2", "3"):
        known = {}
        for kind in ("unix", "tcp"):
            path = f"/by-{kind}/a%20b/%C3%A9?q=1&r=%20"
            known[kind] = await ask(settings, authority, version, path, headers)
        unix, tcp = (
            {
                name: str(value).replace(f"by-{kind}", "by")
                for name, value in found.items()
                if name not in OF_THE_SERVER | {"HTTP_X_REQUEST_ID"}
            }
            for kind, found in known.items()
        )
        assert unix == tcp, version
        ours = known["unix"]
        assert (ours["SERVER_NAME"], ours["SERVER_PORT"]) == (place.hostname, str(place.port or 443))
        assert ours["port"] == str(place.port or 443)
        assert ours["url"] == f"{settings['site_url']}/there"
        assert ours["secure"] is True


async def test_forged_headers_change_nothing_that_django_knows(settings, authority, both):
    """User, address, scheme, host, root path: all that an application reads."""
    for version in ("1.1", "2", "3"):
        for path in PATHS:
            plain = await ask(settings, authority, version, path, {})
            forged = await ask(settings, authority, version, path, FORGED)
            assert plain.pop("HTTP_X_REQUEST_ID") != forged.pop("HTTP_X_REQUEST_ID")
            assert forged == plain, version


def test_a_body_is_sent_after_100_continue(settings, authority, both):
    place = urlsplit(settings["site_url"])
    context = ssl.create_default_context(cafile=authority)
    head = (
        f"POST /by-unix/ HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        "Expect: 100-continue\r\nContent-Length: 8\r\n\r\n"
    )
    plain = socket.create_connection((place.hostname, place.port or 443), 60)
    with context.wrap_socket(plain, server_hostname=place.hostname) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"the body")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert json.loads(answer.read())["body"] == "the body"


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_server_sent_events_arrive_one_by_one(settings, authority, both, version):
    """Each is sent when the one before has arrived. A buffer would hold the first back until all are sent."""
    context = ssl.create_default_context(cafile=authority)
    site = f"{settings['site_url']}/by-unix"
    versions = {"http1": version == "1.1", "http2": version == "2"}
    async with httpx.AsyncClient(verify=context, timeout=60, **versions) as client:
        came = []
        async with client.stream("GET", f"{site}/events") as answer:
            async for part in answer.aiter_text():
                came.append(part)
                assert (await client.get(f"{site}/more")).status_code == 200
    assert came == [f"data: {number}\n\n" for number in range(3)]
