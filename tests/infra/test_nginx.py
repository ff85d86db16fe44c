import re
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import h2.connection
import hpack
import httpx
import pytest
from infra.tools import MORE_THAN_SYSTEMD_STARTS, children, journal, killed, main_process, stopped
from waiting import wait_until

pytestmark = pytest.mark.hosts("edge")
EVIDENCE = ["nginx", "app-web@*"]


@pytest.fixture
def site(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    with httpx.Client(base_url=settings["site_url"], verify=context, timeout=20) as client:
        yield client


def test_its_workers_have_no_rights(host, settings):
    """They parse what strangers send."""
    workers = children(host, main_process(host, "nginx.service"))
    assert workers
    for worker in workers:
        status = host.check_output("cat /proc/%s/status", str(worker))
        assert host.check_output("stat -c %%U /proc/%s", str(worker)) == "www-data"
        assert int(re.search(r"CapEff:\t(\w+)", status)[1], 16) == 0
        assert re.search(r"NoNewPrivs:\t(\d)", status)[1] == "1"


def test_what_is_on_disk_is_what_it_would_start_with(host):
    """A restart must not be the moment when a mistake shows."""
    tested = host.run("nginx -t")
    assert tested.rc == 0
    assert "[warn]" not in tested.stderr


def test_one_request_id_is_in_the_logs_of_nginx_and_of_the_application(host, site):
    answer = site.get("/no-such-page", headers={"X-Request-ID": "forged-by-the-client"})
    request_id = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    written = f"grep -F {request_id} /var/log/nginx/access.log"
    wait_until(lambda: host.run(written).rc == 0, "nginx to write its log, each 5 s")
    assert f"WARNING django.request [{request_id}]: Not Found" in journal(
        host, "--unit='app-web@*'", "--since=-5min"
    )


HEADERS, END_STREAM = 1, 1  # of RFC 9113


def ask_by_http_2(settings, context, path, sent):
    """The status of a request; `sent` is called when it is under way.

    Frames are read by hand: h2 reads none after a GOAWAY, which refuses later requests only.
    """
    place = urlsplit(settings["site_url"])
    http = h2.connection.H2Connection()
    names = {":method": "GET", ":path": path, ":scheme": "https", ":authority": place.netloc}
    plain = socket.create_connection((place.hostname, place.port or 443), 60)
    with context.wrap_socket(plain, server_hostname=place.hostname) as connection:
        http.initiate_connection()
        http.send_headers(1, [*names.items()], end_stream=True)
        connection.sendall(http.data_to_send())
        sent()
        status = None
        with connection.makefile("rb") as answer:
            while head := answer.read(9):
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9])
                payload = answer.read(int.from_bytes(head[:3]))
                if stream == 1 and kind == HEADERS:
                    status = int(dict(hpack.Decoder().decode(payload))[":status"])
                if stream == 1 and flags & END_STREAM:
                    return status
    return None


@pytest.mark.disruptive
def test_a_request_by_http_2_is_answered_by_the_nginx_that_took_it(host, settings):
    """An update of nginx starts another one beside it."""
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    context.set_alpn_protocols(["h2"])

    def upgrade():
        time.sleep(1)  # the request is in the application
        host.check_output("invoke-rc.d nginx upgrade")

    assert ask_by_http_2(settings, context, "/lab/async/sleep/?seconds=5", upgrade) == 200


STATIC_FILES = {
    "test-plain.js": "text/javascript",
    "test-module.mjs": "text/javascript",
    "test-manifest.webmanifest": "application/manifest+json",
    "test-code.wasm": "application/wasm",
    "test-image.avif": "image/avif",
    "test-dated.202611301200.avif": "image/avif",
    "test-hashed.5c1b8d2f0a3e.css": "text/css",
    "test-without-suffix.5c1b8d2f0a3e": "application/octet-stream",
}


@pytest.fixture
def static_files(host, settings):
    paths = " ".join(f"{settings['nginx_static_directory']}/{name}" for name in STATIC_FILES)
    try:
        host.check_output(f"for path in {paths}; do echo content > $path; chmod 644 $path; done")
        yield
    finally:
        host.check_output(f"rm -f {paths}")


@pytest.mark.disruptive
def test_only_a_static_file_whose_name_has_its_hash_is_kept_without_asking(settings, site, static_files):
    for name, kind in STATIC_FILES.items():
        path = f"{settings['nginx_static_path']}{name}"
        answer = site.get(path)
        assert (
            answer.headers["content-type"].split(";")[0].replace("application/javascript", "text/javascript")
            == kind
        ), name
        hashed = ".5c1b8d2f0a3e" in name
        kept = "public, max-age=31536000, immutable" if hashed else "no-cache"
        assert answer.headers["cache-control"] == kept, name
        assert site.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304, name


@pytest.mark.disruptive
def test_static_files_come_from_disk(host, settings, site):
    """With the application stopped they are served all the same, and a page of nginx's own says 502."""
    page = site.get("/")
    path = re.search(r'href="(/static/[^"]+\.css)"', page.text)[1]
    stops = settings["app_drain_seconds"] + 20  # TimeoutStopSec is ten seconds more than the drain
    with stopped(host, "app.target"):
        wait_until(lambda: site.get("/livez").status_code == 502, "the application to answer no more", stops)
        assert site.get(path).status_code == 200
        answer = site.get("/")
        assert answer.status_code == 502
        assert settings["nginx_unavailable_title"] in answer.text
        assert int(answer.headers["retry-after"]) < 60
    wait_until(lambda: site.get("/readyz").status_code == 200, "the site to be ready again")


@pytest.mark.disruptive
def test_killed_it_comes_back(host, site):
    for _ in range(MORE_THAN_SYSTEMD_STARTS):
        killed(host, "nginx.service")

    def ready():
        try:
            return site.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, "the site to be ready again")
