"""Maintenance mode: clients are told to come back, monitoring sees the application, and nothing turns it off
but who turned it on."""

import json
import re
import socket
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from infra.tools import inventory_of, play
from waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

pytestmark = [pytest.mark.disruptive, pytest.mark.hosts("edge")]
EVIDENCE = ["nginx", "app-web@*", "app-websocket@*"]


@pytest.fixture(scope="module")
def tls(settings):
    """Makes a context for each who asks: httpx writes into the one it is given which HTTP it offers."""
    authority = Path(settings["secrets_authority_certificate"])
    return lambda: ssl.create_default_context(cafile=authority if authority.exists() else None)


@pytest.fixture(scope="module")
def site(settings, tls):
    with httpx.Client(base_url=settings["site_url"], verify=tls(), timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def websocket(settings, tls):
    url = settings["site_url"]
    address = url.replace("https://", "wss://") + settings["app_websocket_path"] + "echo/"
    return lambda: connect(address, ssl=tls(), origin=url, open_timeout=20)


def turn(servers, mode):
    done = play(inventory_of(servers), "maintenance", arguments=["-e", f"maintenance={mode}"])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def closed(servers, settings, tls, site, websocket):
    """The site in maintenance mode, with what was there before: its front page, an upload that was under way,
    and a WebSocket that was open."""
    front = site.get("/")
    assert front.status_code == 200
    seen = SimpleNamespace(static=re.search(r'href="(/static/[^"]+\.css)"', front.text)[1])
    seen.usual = site.post("/", content=b"x").status_code
    began, switched = threading.Event(), threading.Event()

    def drip():
        while not switched.wait(1):
            began.set()
            yield b"x"

    def upload():
        with httpx.Client(base_url=settings["site_url"], verify=tls(), timeout=60) as client:
            seen.upload = client.post("/", content=drip())

    thread = threading.Thread(target=upload)
    with websocket() as seen.websocket:
        thread.start()
        try:
            assert began.wait(30), "the upload did not begin"
            turn(servers, "on")
            switched.set()
            thread.join(60)
            yield seen
        finally:
            switched.set()
            turn(servers, "off")


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_page_says_when_to_come_back(closed, settings, tls, http2, method):
    with httpx.Client(base_url=settings["site_url"], verify=tls(), http1=not http2, http2=http2) as client:
        answer = client.request(method, "/chat/", content=b"x=1" if method == "POST" else None)
    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == str(settings["nginx_maintenance_retry_seconds"])
    assert answer.headers["cache-control"] == "no-store"
    assert "strict-transport-security" in answer.headers
    assert settings["nginx_maintenance_title"] in answer.text
    assert settings["nginx_maintenance_text"] in answer.text


def test_a_program_gets_it_in_json(closed, settings, site):
    answer = site.get("/api/ninja/posts", headers={"Accept": "application/json"})
    assert answer.status_code == 503
    assert answer.json() == {
        "title": settings["nginx_maintenance_title"],
        "detail": settings["nginx_maintenance_text"],
    }


def test_the_health_path_and_static_files_go_on(closed, settings, site):
    health = site.get(settings["app_health_path"])
    assert health.status_code == 200
    assert settings["nginx_maintenance_title"] not in health.text
    assert site.get(closed.static).status_code == 200


def test_what_was_under_way_was_finished(closed):
    assert closed.upload.status_code == closed.usual


def test_open_websockets_were_told_to_come_back_and_new_ones_wait(closed, websocket):
    with pytest.raises(ConnectionClosed) as told:
        closed.websocket.recv(timeout=10)
    assert told.value.rcvd.code == 1012
    with pytest.raises(InvalidStatus) as refused, websocket():
        pass
    assert refused.value.response.status_code == 503


@pytest.mark.hosts("web")
def test_who_looks_at_the_host_is_told(closed, host):
    said = host.check_output("app-status")
    assert re.search(r"^maintenance mode: on since \d{4}-\d\d-\S+Z by \S+@\S+$", said, re.M), said


def test_it_outlives_restarts_converges_and_deploys_and_they_change_nothing(closed, servers, host, site):
    host.check_output("systemctl restart nginx")
    wait_until(lambda: answers(site), "nginx to come back")
    done = play(inventory_of(servers), "site", "deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.changed == dict.fromkeys(servers.settings, 0), done.stdout
    assert set(turn(servers, "on").changed.values()) == {0}
    assert site.get("/").status_code == 503


def answers(site):
    try:
        return site.get("/")
    except httpx.TransportError:
        return None


def test_who_may_pass_sees_the_site(closed, servers, settings, site, websocket):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((settings.get("ansible_host", settings["inventory_hostname"]), 9))
        own = probe.getsockname()[0]
    told = ["--tags", "nginx", "-e"]
    try:
        done = play(
            inventory_of(servers),
            "site",
            arguments=[*told, json.dumps({"nginx_maintenance_allowed": [f"{own}/32"]})],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: site.get("/").status_code == 200, "this address to pass")
        with wait_until(lambda: opened(websocket), "a WebSocket to pass") as passed:
            passed.send("in")
            assert passed.recv(timeout=10) == "in"
    finally:
        done = play(inventory_of(servers), "site", arguments=told[:2])
        assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: site.get("/").status_code == 503, "this address to pass no more")


def opened(websocket):
    try:
        return websocket()
    except (InvalidMessage, InvalidStatus):  # an old worker of nginx, which ends
        return None


def test_off_opens_the_site(closed, servers, site, websocket):
    assert set(turn(servers, "off").changed.values()) == {1}
    assert site.get("/").status_code == 200
    # A worker of nginx that ends may still take a connection or two.
    with wait_until(lambda: opened(websocket), "a WebSocket to pass", 30) as again:
        again.send("again")
        assert again.recv(timeout=60) == "again"
    assert set(turn(servers, "off").changed.values()) == {0}
