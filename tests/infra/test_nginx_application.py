"""What passes between a client and the application: a server of the test is in the application's place."""

import collections
import contextlib
import ipaddress
import json
import re
import socket
import ssl
import statistics
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import h2.connection
import h2.exceptions
import httpx
import pytest
from http3 import ask as ask_by_http_3
from infra.forged_headers import FORGED
from infra.nginx_tools import ask_nginx, mirrored, reload_nginx, started
from infra.tools import asked_by_itself, changed, live_slot
from waiting import wait_until

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-mirror"]


@pytest.fixture
def site(settings):
    authority = Path(settings["secrets_authority_certificate"])
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    with httpx.Client(base_url=settings["site_url"], verify=context, timeout=20, http2=True) as client:
        yield client


@pytest.fixture
def mirror(host, settings):
    with mirrored(host, settings):
        yield


# Of nginx, and of the client itself. Anything else comes from the forged headers.
FROM_NGINX = {"connection", "host", "x-forwarded-for", "x-forwarded-proto", "x-request-id"}
FROM_THE_CLIENT = {"accept", "accept-encoding", "user-agent"}


async def mirrored_headers(settings, authority, version, headers, path="/"):
    """What the mirror got: [(name in small letters, value)]"""
    if version == "3":
        _, body = await ask_by_http_3(settings, authority, path, headers)
    else:
        context = ssl.create_default_context(cafile=authority)
        async with httpx.AsyncClient(verify=context, http1=version == "1.1", http2=version == "2") as client:
            answer = await client.get(f"{settings['site_url']}{path}", headers=headers.items())
        assert answer.http_version == f"HTTP/{version}", answer
        body = answer.content
    return [(name.lower(), value) for name, value in json.loads(body)]


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
async def test_a_forged_header_does_not_reach_the_application(settings, authority, mirror, version):
    """However it is spelled and however often it is sent: each comes from nginx, once, or not at all."""
    got = await mirrored_headers(settings, authority, version, FORGED)
    names = [name for name, _ in got]
    assert set(names) - FROM_THE_CLIENT == FROM_NGINX
    assert len(names) == len(set(names)), got
    assert "evil" not in str(got)
    headers = dict(got)
    assert headers["host"] == urlsplit(settings["site_url"]).netloc
    assert ipaddress.ip_address(headers["x-forwarded-for"])
    assert headers["x-forwarded-for"] != "203.0.113.99"
    assert headers["x-forwarded-proto"] == "https"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])


@pytest.mark.parametrize("size", [4_200, 32_000])
def test_large_headers_of_an_answer_pass(site, mirror, size):
    assert len(site.get(f"/large?{size}").headers["set-cookie"]) == size + len("large=")


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
async def test_large_headers_of_a_request_pass(settings, authority, mirror, version):
    """A cookie of 32 kB; and a path of 30 kB, which is in one line with HTTP/1.1."""
    cookie = {"Cookie": "large=" + "a" * 32_000}
    got = dict(await mirrored_headers(settings, authority, version, cookie))
    assert got["cookie"] == cookie["Cookie"]
    assert await mirrored_headers(settings, authority, version, {}, path="/?" + "q" * 30_000)


def test_a_request_writes_less_than_four_kilobytes_of_log(host, settings, site):
    """nginx and the application together, for a page that there is not."""
    unit = f"app-web@{live_slot(host, settings)}"

    def written():
        logs = f"cat /var/log/nginx/*.log; journalctl --output=cat --unit={unit}"
        return int(host.check_output(f"({logs}) | wc -c"))

    before = written()
    marks = {"Referer": "https://example.org/" + "\xe9" * 3_000, "User-Agent": "\xe9" * 3_000}
    headers = {name: value.encode("latin-1") for name, value in marks.items()}
    name = uuid.uuid4().hex
    assert site.get(f"/{name}" + "a" * 6_000, headers=headers).status_code == 404
    wait_until(lambda: host.run(f"grep -q {name} /var/log/nginx/access.log").rc == 0, "nginx's line")
    assert 200 < written() - before < 4096


@pytest.fixture
def limited(host):
    """Limits for the tests' own address as well, which an inventory of machines exempts."""
    limits = "/etc/nginx/conf.d/limits.conf"
    try:
        with changed(host, limits, f"sed -i '/ 1;$/d' {limits}"):
            reload_nginx(host)
            yield
    finally:
        reload_nginx(host)


def most_answered(settings, seconds):
    """How many requests of one address nginx passes on in that time, a second more for its clock."""
    return settings["nginx_limit_burst"] + 1 + settings["nginx_limit_requests"] * (seconds + 1)


# One request after another, until its standard input ends. Prints "refused" when nginx first refused one, and
# at the end how many got which status, the values of Retry-After, and how many seconds it took.
FLOOD = """
import collections, http.client, json, select, ssl, sys, time
source, port, name = sys.argv[1:]
one = http.client.HTTPSConnection(
    "127.0.0.1", int(port), context=ssl._create_unverified_context(), timeout=60, source_address=(source, 0))
seen, retries, began = collections.Counter(), set(), time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0] and (seen[429] or seen.total() < 5_000):
    one.request("GET", "/", headers={"Host": name})
    answer = one.getresponse()
    answer.read()
    seen[answer.status] += 1
    if answer.status == 429:
        retries.add(answer.getheader("Retry-After"))
        if seen[429] == 1:
            print("refused", flush=True)
print(json.dumps([seen, list(retries), time.monotonic() - began]))
"""


def test_a_client_that_floods_is_limited_and_others_are_not(host, settings, site, mirror, limited):
    """From the host itself. A client of another address is answered meanwhile."""
    name = urlsplit(settings["site_url"]).netloc
    with started(settings, FLOOD, "127.0.0.10", settings["site_https_port"], name) as flood:
        assert flood.stdout.readline() == "refused\n"
        others = [site.get("/").status_code for _ in range(50)]
        flood.stdin.close()
        seen, retries, seconds = json.loads(flood.stdout.readline())
    print(f"answered in {seconds:.1f} s: {seen}, others answered: {len(others)}")
    assert set(seen) == {"200", "429"}
    assert seen["200"] <= most_answered(settings, seconds)
    assert retries == ["1"]
    assert others == [200] * 50


# As many requests at once as its last argument says; for each answer a line with its status and Retry-After.
HOLD = """
import http.client, ssl, sys, threading
source, port, name, count = sys.argv[1:]
context = ssl._create_unverified_context()
def ask():
    one = http.client.HTTPSConnection(
        "127.0.0.1", int(port), context=context, timeout=90, source_address=(source, 0))
    one.request("GET", "/held", headers={"Host": name})
    answer = one.getresponse()
    print(f"{answer.status} {answer.getheader('Retry-After')}\\n", end="", flush=True)
for _ in range(int(count)):
    threading.Thread(target=ask).start()
"""


def test_slow_requests_of_one_client_are_limited(host, settings, site, mirror):
    """From the host itself, which is not exempt. A client of another address is answered meanwhile."""
    most, more = settings["nginx_limit_connections"], 20
    name = urlsplit(settings["site_url"]).netloc
    arguments = ["127.0.0.9", settings["site_https_port"], name, most + more]
    with started(settings, HOLD, *arguments) as client:
        refused = [client.stdout.readline() for _ in range(more)]
        others = [site.get("/").status_code for _ in range(20)]
        site.get("/release")
        answered = [client.stdout.readline() for _ in range(most)]
    assert refused == ["429 1\n"] * more
    assert answered == ["200 None\n"] * most
    assert others == [200] * 20


def reset_streams(settings, context, sent, stop):
    """Open streams of HTTP/2 and reset each at once, on one connection after another; `sent` counts them."""
    place = urlsplit(settings["site_url"])
    names = {":method": "GET", ":path": "/attack", ":scheme": "https", ":authority": place.netloc}
    while not stop.is_set():
        # nginx closes a connection after a number of streams
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            plain = socket.create_connection((place.hostname, place.port or 443), 10)
            with context.wrap_socket(plain, server_hostname=place.hostname) as connection:
                http = h2.connection.H2Connection()
                http.initiate_connection()
                while not stop.is_set():
                    for _ in range(50):
                        stream = http.get_next_available_stream_id()
                        http.send_headers(stream, [*names.items()], end_stream=True)
                        http.reset_stream(stream)
                    connection.sendall(http.data_to_send())
                    sent["streams"] += 50


# How many times as long as alone a client may wait beside the attack. The attacking test and nginx share two
# cores with it; without limits it waited some 1,000 times as long, or got a 502.
SLOWER = 50


def test_a_client_that_resets_streams_delays_no_other(host, settings, authority, mirror, limited):
    """Another client asks from the host itself, before and meanwhile."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    sent, stop = collections.Counter(), threading.Event()
    alone = asked_by_itself(host, settings, times=20)
    attack = threading.Thread(target=reset_streams, args=(settings, context, sent, stop))
    began = time.monotonic()
    attack.start()
    try:
        wait_until(lambda: sent["streams"] > 1_000, "the attack to be under way")
        beside = asked_by_itself(host, settings, times=20)
    finally:
        stop.set()
        attack.join()
    allowed = most_answered(settings, time.monotonic() - began)
    ((_, _, counts),) = ask_nginx(host, settings, {"path": "/counts"})
    passed = json.loads(counts).get("/attack", 0)
    times = [statistics.median(seconds for _, seconds in answers) for answers in (alone, beside)]
    print(f"{sent['streams']} streams, {passed} passed on; median seconds alone and beside: {times}")
    assert [status for status, _ in alone + beside] == [200] * 40
    assert 0 < passed <= allowed
    assert times[1] < SLOWER * times[0]
