"""What Django knows of a request is what it knows under uvicorn on TCP behind the same nginx."""

import json
import ssl
from urllib.parse import urlsplit

import httpx
import pytest
from http3 import ask as ask_by_http_3
from infra.tools import asked_by_itself, changed
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-metadata-*"]

# A project of one file, which answers with all that it knows.
PROJECT = """
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", MIDDLEWARE=[],
                   SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import re_path

def known(request):
    meta = {name: value for name, value in request.META.items() if isinstance(value, (str, int))}
    return JsonResponse(meta | {
        "host": request.get_host(), "port": request.get_port(), "scheme": request.scheme,
        "secure": request.is_secure(), "url": request.build_absolute_uri("/there"),
        "body": request.body.decode(), "path": request.path, "user": None,
    })

urlpatterns = [re_path("", known)]
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
        with changed(host, media, f"cat >> {media} <<'END' && nginx -s reload\n{LOCATIONS}\nEND"):

            def in_force():
                return {asked_by_itself(host, settings, path)[0][0] for path in PATHS} == {200}

            wait_until(in_force, "nginx's workers to know the locations")
            yield
    finally:
        host.check_output("nginx -s reload")
        host.run(f"systemctl stop 'test-metadata-*'; rm -rf {PLACE}")


async def ask(settings, authority, version, path, headers):
    if version == "3":
        _, body = await ask_by_http_3(settings, authority, path, headers)
        return json.loads(body)
    context = ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(verify=context, http1=version == "1.1", http2=version == "2") as client:
        answer = await client.get(settings["site_url"] + path, headers=headers)
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


async def test_a_body_is_sent_after_100_continue(settings, authority, both):
    context = ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(verify=context) as client:
        answer = await client.post(
            f"{settings['site_url']}/by-unix/", content=b"the body", headers={"Expect": "100-continue"}
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["body"] == "the body"
