import http.client
import re
import socket
import ssl

import httpx
import pytest


def test_it_is_live_and_ready(client, settings):
    ready = client.get(settings["app_health_path"])
    assert ready.status_code == 200
    assert client.get("/livez").status_code == 200


def test_readiness_was_asked_of_every_part(client, settings):
    """And nobody between keeps the answer."""
    ready = client.get(settings["app_health_path"])
    assert set(ready.json()["checks"].values()) == {"ok"}
    assert "no-store" in ready.headers["cache-control"]


def test_http_2_is_negotiated(client):
    assert client.get("/livez").http_version == "HTTP/2"


def test_http_1_1_is_still_spoken(url, tls):
    assert httpx.get(f"{url}/livez", verify=tls).http_version == "HTTP/1.1"


def test_plain_http_is_sent_to_https_with_its_path(settings, url):
    answer = httpx.get(f"http://{settings['site_domain']}:{settings['site_http_port']}/a/path?and=query")
    assert answer.status_code == 301
    assert answer.headers["location"] == f"{url}/a/path?and=query"


HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.mark.parametrize("path", ["/", "/visits/", "/livez", "/no-such-page"])
def test_each_security_header_is_sent_once(client, settings, path):
    """Sent twice, a header is read in different ways by different browsers."""
    answer = client.get(path)
    wanted = HEADERS | {"strict-transport-security": f"max-age={settings['nginx_hsts_seconds']}"}
    assert {name: answer.headers.get_list(name) for name in wanted} == {
        name: [wanted[name]] for name in wanted
    }


@pytest.mark.parametrize("path", ["/", "/no-such-page", "/static/no-such-file"])
def test_no_version_is_told(client, path):
    """A list of servers to attack is made by version."""
    answer = client.get(path)
    assert answer.headers.get("server", "nginx") == "nginx"
    assert "x-powered-by" not in answer.headers
    assert not re.search(r"(nginx|gunicorn|uvicorn|daphne)[/ ]\d", answer.text, re.IGNORECASE)


def stylesheet(client):
    return re.search(r'href="(/static/[^"]+\.css)"', client.get("/").text)[1]


def test_a_page_comes_with_its_stylesheet(client):
    """Its name changes with its content, so a browser keeps it for ever."""
    path = stylesheet(client)
    assert re.search(r"\.[0-9a-f]{12}\.css$", path)
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    # twelve digits without a letter are no hash (infra/nginx/conf.d/static.conf.j2)
    kept = "no-cache" if re.search(r"\.\d{12}\.css$", path) else "public, max-age=31536000, immutable"
    assert answer.headers.get_list("cache-control") == [kept]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert len(answer.headers.get_list("strict-transport-security")) == 1


@pytest.mark.parametrize("coding", ["gzip", "br"])
@pytest.mark.parametrize("what", ["page", "stylesheet"])
def test_text_is_sent_packed(client, coding, what):
    path = stylesheet(client) if what == "stylesheet" else "/"
    with client.stream("GET", path, headers={"Accept-Encoding": coding}) as answer:
        packed = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == coding
        assert "Accept-Encoding" in answer.headers["vary"]
    assert len(packed) < len(client.get(path, headers={"Accept-Encoding": "identity"}).content)


def test_an_unknown_page_is_a_plain_404(client):
    """Django's page for developers names every URL and setting of the application."""
    answer = client.get("/no-such-page")
    assert answer.status_code == 404
    assert "DEBUG" not in answer.text
    assert "urlpatterns" not in answer.text.lower()


def test_nothing_above_the_static_files_is_served(client, settings):
    path = settings["nginx_static_directory"]
    for trick in (
        "/static/../live/release.json",
        "/static../live/release.json",
        "/static/%2e%2e/live/release.json",
    ):
        with_trick = raw_path(client, trick)
        assert with_trick.status_code == 404, f"{trick} out of {path}: {with_trick.status_code}"


def raw_path(client, path):
    """httpx would tidy the path up before it is sent."""
    request = client.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    return client.send(request)


def test_a_page_renders(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>" in page.text


def test_a_page_comes_from_the_database(client):
    """By the async ORM, through PgBouncer."""
    page = client.get("/visits/")
    assert page.status_code == 200
    assert re.search(r"\d+ in all", page.text)


def test_a_form_without_its_token_is_refused(client):
    assert client.post("/visits/").status_code == 403


def test_a_body_above_the_limit_is_refused(settings, tls):
    """Before it is read: the application never sees it."""
    number, unit = re.fullmatch(r"(\d+)([kmg]?)", settings["nginx_max_body"].lower()).groups()
    size = int(number) * 1024 ** " kmg".index(unit or " ")
    connection = http.client.HTTPSConnection(
        settings["site_domain"], settings["nginx_public_port"], context=tls, timeout=15
    )
    connection.putrequest("POST", "/visits/")
    connection.putheader("Content-Length", str(size + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_is_not_ours_gets_no_answer(settings, scheme):
    """Scanners ask every address for every name, and learn nothing here."""
    port = settings[f"site_{scheme}_port"]
    with socket.create_connection((settings["site_domain"], port), 10) as connection:
        if scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname="other.example.org")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: other.example.org\r\n\r\n")
        assert connection.recv(100) == b""
