"""What passes between a client and the application: a server of the test is in the application's place."""

import contextlib
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import h2.connection
import h2.exceptions
import httpx
import pytest
import yaml
from http3 import ask as ask_by_http_3
from infra.tools import ROOT, asked_by_itself, changed
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-mirror"]

# It answers with the headers that it got. /large?N: with a header of N bytes; /events: with three events, a
# second apart; /slow: after three seconds.
MIRROR = """
import json, os, socketserver, time
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "nginx"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = json.dumps(self.headers.items()).encode()
        if path == "/slow":
            time.sleep(3)
        self.send_response(200)
        self.send_header("Connection", "close")
        if path == "/large":
            self.send_header("Set-Cookie", "large=" + "a" * int(query))
        if path == "/events":
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("X-Accel-Buffering", "no")
            self.end_headers()
            for number in range(3):
                self.wfile.write(f"data: {number}\\n\\n".encode())
                time.sleep(1)
            return
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 1000

os.umask(0)
Server(SOCKET, Handler).serve_forever()
"""


@pytest.fixture
def site(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    with httpx.Client(base_url=settings["site_url"], verify=context, timeout=20, http2=True) as client:
        yield client


@pytest.fixture
def mirror(host, settings):
    """The mirror in the application's place."""
    live, place = f"{settings['app_runtime_directory']}/live", f"{settings['app_runtime_directory']}/mirror"
    slot = host.check_output("readlink %s", live)
    host.check_output(
        f"mkdir -p {place} && rm -f {place}/web.sock"
        " && systemd-run --quiet --collect --unit=test-mirror python3 -c %s",
        f"SOCKET = '{place}/web.sock'" + MIRROR,
    )
    try:
        wait_until(lambda: host.run("test -S %s/web.sock", place).rc == 0, "the mirror to listen")
        host.check_output("ln -sfn mirror %s", live)
        yield
    finally:
        host.check_output("ln -sfn %s %s", slot, live)
        host.check_output(f"systemctl stop test-mirror.service; rm -r {place}")


# What an application may believe, and a client must not say: what nginx sets, and what it removes.
ROLE = yaml.safe_load((ROOT / "infra/ansible/roles/nginx/vars/main.yml").read_text())
FORGED = {
    "X-Forwarded-For": "203.0.113.99",
    "X-Forwarded-Proto": "evil",
    "X-Request-ID": "evil-evil-evil",
} | dict.fromkeys(ROLE["__nginx_untrusted_headers"], "evil.example.org")


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
async def test_a_client_cannot_say_what_the_application_believes(settings, authority, mirror, version):
    """Each of these headers comes from nginx, once, or not at all."""
    if version == "3":
        _, body = await ask_by_http_3(settings, authority, "/", FORGED)
    else:
        context = ssl.create_default_context(cafile=authority)
        async with httpx.AsyncClient(verify=context, http1=version == "1.1", http2=version == "2") as client:
            body = (await client.get(settings["site_url"], headers=FORGED)).content
    got = [(name.lower(), value) for name, value in json.loads(body)]
    assert "203.0.113.99" not in str(got)
    assert "evil" not in str(got)
    names = [name for name, _ in got]
    assert len(names) == len(set(names)), got
    headers = dict(got)
    assert headers["host"] == urlsplit(settings["site_url"]).netloc
    assert headers["x-forwarded-proto"] == "https"
    assert len(headers["x-request-id"]) == 32
    assert {name for name in names if name.startswith("x-") or "forward" in name} == {
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    }


@pytest.mark.parametrize("size", [4_200, 32_000])
def test_large_headers_of_an_answer_pass(site, mirror, size):
    assert len(site.get(f"/large?{size}").headers["set-cookie"]) == size + len("large=")


@pytest.mark.parametrize("size", [9_000, 32_000])
def test_large_headers_of_a_request_pass(site, mirror, size):
    got = {
        name.lower(): value for name, value in site.get("/", headers={"Cookie": "large=" + "a" * size}).json()
    }
    assert len(got["cookie"]) == size + len("large=")


def test_an_application_may_turn_buffering_off(site, mirror):
    """pergola_runtime does for server-sent events."""
    came = []
    with site.stream("GET", "/events") as answer:
        came.extend(time.monotonic() for _ in answer.iter_raw())
    assert len(came) == 3
    assert came[-1] - came[0] > 1


def test_a_request_writes_less_than_four_kilobytes_of_log(host, site, mirror):
    before = int(host.check_output("cat /var/log/nginx/*.log | wc -c"))
    marks = {"Referer": "https://example.org/" + "\xe9" * 3_000, "User-Agent": "\xe9" * 3_000}
    site.get("/" + "a" * 6_000, headers={name: value.encode("latin-1") for name, value in marks.items()})

    def grown():
        return int(host.check_output("cat /var/log/nginx/*.log | wc -c")) - before

    wait_until(lambda: grown() > 100, "the request's line")
    assert grown() < 4096


@pytest.fixture
def limited(host):
    """Limits for the tests' own address as well, which an inventory of machines exempts."""
    limits = "/etc/nginx/conf.d/limits.conf"
    try:
        with changed(host, limits, f"sed -i '/ 1;$/d' {limits} && nginx -s reload"):
            yield
    finally:
        host.check_output("nginx -s reload")


FLOOD = 3  # seconds


def test_a_client_that_floods_is_limited_and_others_are_not(host, settings, site, mirror, limited):
    """From the host itself. A client of another address is answered meanwhile."""
    name = urlsplit(settings["site_url"]).netloc
    ask = (
        "import http.client, json, ssl, sys, time; end = time.monotonic() + float(sys.argv[1]); seen = {};\n"
        "while time.monotonic() < end:\n"
        "    one = http.client.HTTPSConnection('127.0.0.1', context=ssl._create_unverified_context())\n"
        f"    one.request('GET', '/', headers={{'Host': '{name}'}}); answer = one.getresponse()\n"
        "    seen[answer.status] = seen.get(answer.status, 0) + 1; retry = answer.getheader('Retry-After')\n"
        "    if answer.status == 429: assert retry == '1', retry\n"
        "print(json.dumps(seen))"
    )
    others = []
    stop = threading.Event()

    def ask_meanwhile():
        while not stop.is_set():
            others.append(site.get("/").status_code)
            time.sleep(0.1)

    thread = threading.Thread(target=ask_meanwhile)
    thread.start()
    floods = " & ".join([f'python3 -c "$CODE" {FLOOD}'] * 4)
    try:
        said = host.check_output(f"CODE=%s; export CODE; {floods} & wait", ask)
    finally:
        stop.set()
        thread.join()
    counts = [json.loads(line) for line in said.splitlines()]
    answered = sum(count.get("200", 0) for count in counts)
    refused = sum(count.get("429", 0) for count in counts)
    print(f"answered: {answered}, refused: {refused}, others answered: {len(others)}")
    allowed = settings["nginx_limit_burst"] + settings["nginx_limit_requests"] * (FLOOD + 2)
    assert 0 < answered <= allowed
    assert refused > 0
    assert set(others) == {200}


# as many requests at once as its first argument says; prints how many got which status
SLOW = """
import collections, http.client, json, ssl, sys, threading
seen = collections.Counter()
def ask():
    options = {"context": ssl._create_unverified_context(), "timeout": 60}
    # an address that no other test asks from
    one = http.client.HTTPSConnection("127.0.0.1", source_address=("127.0.0.9", 0), **options)
    one.request("GET", "/slow", headers={"Host": sys.argv[2]})
    seen[one.getresponse().status] += 1
threads = [threading.Thread(target=ask) for _ in range(int(sys.argv[1]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(seen))
"""


def test_slow_requests_of_one_client_are_limited(host, settings, site, mirror):
    """From the host itself, whose address is not exempt."""
    most = settings["nginx_limit_connections"]
    name = urlsplit(settings["site_url"]).netloc
    seen = json.loads(host.check_output("python3 -c %s %s %s", SLOW, str(most + 20), name))
    assert seen == {"200": most, "429": 20}
    assert site.get("/").status_code == 200


RESETS = 3  # seconds


def reset_streams(settings, context, seconds):
    """Open streams of HTTP/2 and reset each at once, on one connection after another. Returns how many."""
    place = urlsplit(settings["site_url"])
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        # nginx closes a connection after a number of streams
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            plain = socket.create_connection((place.hostname, place.port or 443), 10)
            with context.wrap_socket(plain, server_hostname=place.hostname) as connection:
                http = h2.connection.H2Connection()
                http.initiate_connection()
                names = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": place.netloc}
                while time.monotonic() < end:
                    for _ in range(50):
                        stream = http.get_next_available_stream_id()
                        http.send_headers(stream, [*names.items()], end_stream=True)
                        http.reset_stream(stream)
                        count += 1
                    connection.sendall(http.data_to_send())
    return count


def test_a_client_that_resets_streams_delays_no_other(host, settings, authority, mirror, limited):
    """Another client asks from the host itself meanwhile."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    counts = []
    attack = threading.Thread(
        target=lambda: counts.append(reset_streams(settings, context, RESETS)), daemon=True
    )
    attack.start()
    answers = asked_by_itself(host, settings, times=20)
    attack.join()
    slowest = max(seconds for _, seconds in answers)
    print(f"streams: {counts[0]}, slowest answer meanwhile: {slowest:.2f} s")
    assert counts[0] > 1000
    assert {status for status, _ in answers} == {200}
    assert slowest < 2  # 0.2 s, measured
