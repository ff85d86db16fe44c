"""Behind a balancer that sends X-Forwarded-For: whose address counts as the client's, and is limited."""

import json

import pytest
from infra.nginx_tools import ask_nginx, mirrored, nginx_with
from waiting import wait_until

# full: two converges
pytestmark = [pytest.mark.disruptive, pytest.mark.full, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-mirror"]

# addresses of the host itself, which asks
BALANCER, STRANGER = "127.0.0.2", "127.0.0.3"
TRUSTED = [BALANCER, "198.51.100.0/24", "2001:db8:ffff::/48"]
EXEMPT = "203.0.113.200"
BURST = 30


@pytest.fixture(scope="module", autouse=True)
def behind_a_balancer(servers, host, settings):
    """With low limits, which a test reaches with few requests."""
    with nginx_with(
        servers,
        host,
        nginx_trusted_proxies=TRUSTED,
        nginx_passed_headers=["X-Forwarded-User"],
        nginx_limit_requests=1,
        nginx_limit_burst=BURST,
        nginx_limit_websockets=3,
        nginx_limit_exempt=[*settings["nginx_limit_exempt"], EXEMPT],
    ):
        yield


@pytest.fixture
def mirror(host, settings):
    with mirrored(host, settings):
        yield


def forwarded(*lines, source=BALANCER, **more):
    """A request with these lines of X-Forwarded-For."""
    return {"source": source, "headers": [["X-Forwarded-For", line] for line in lines], **more}


def client_of(answer):
    """The address that the application saw."""
    status, _, body = answer
    assert status == 200
    return {name.lower(): value for name, value in json.loads(body)}["x-forwarded-for"]


def statuses(answers):
    return [answer and answer[0] for answer in answers]


# (request, the client's address)
CHAINS = [
    (forwarded("203.0.113.7"), "203.0.113.7"),
    (forwarded("203.0.113.7, 198.51.100.1"), "203.0.113.7"),
    (forwarded("203.0.113.7,198.51.100.1, 198.51.100.2"), "203.0.113.7"),
    (forwarded("203.0.113.7, 198.51.100.1", "198.51.100.2"), "203.0.113.7"),
    (forwarded("2001:db8::7, 2001:db8:ffff::1"), "2001:db8::7"),
    (forwarded("2001:db8::7, 198.51.100.1"), "2001:db8::7"),
    (forwarded("203.0.113.7:4711"), "203.0.113.7"),
    # what the client claims comes before the address that the first trusted proxy saw
    (forwarded("10.0.0.1, 203.0.113.7, 198.51.100.1"), "203.0.113.7"),
    (forwarded("198.51.100.9, 203.0.113.7, 198.51.100.1"), "203.0.113.7"),
    (forwarded("10.0.0.1", "203.0.113.7"), "203.0.113.7"),
    # the chain ends at what is no address
    (forwarded("unknown"), BALANCER),
    (forwarded("unknown, 198.51.100.1"), "198.51.100.1"),
    (forwarded(), BALANCER),
]


def test_the_clients_address_is_the_last_that_is_no_trusted_proxys(host, settings, mirror):
    answers = ask_nginx(host, settings, *(request for request, _ in CHAINS))
    assert [client_of(answer) for answer in answers] == [client for _, client in CHAINS]


def test_the_header_of_another_peer_is_ignored(host, settings, mirror):
    """Also if it claims to come from a trusted proxy."""
    requests = [
        forwarded(line, source=STRANGER) for line in ("203.0.113.7", "203.0.113.7, 198.51.100.1", BALANCER)
    ]
    assert [client_of(answer) for answer in ask_nginx(host, settings, *requests)] == [STRANGER] * 3


def test_a_header_that_is_let_through_comes_from_a_trusted_proxy_alone(host, settings, mirror):
    headers = [["X-Forwarded-User", "ann"], ["X-Forwarded-Email", "ann@example.org"]]
    answers = ask_nginx(
        host, settings, *({"source": source, "headers": headers} for source in (BALANCER, STRANGER))
    )
    names = [{name.lower(): value for name, value in json.loads(body)} for _, _, body in answers]
    assert [one.get("x-forwarded-user") for one in names] == ["ann", None]
    assert not any("x-forwarded-email" in one for one in names)


def test_a_health_check_by_address_is_answered_to_a_trusted_proxy_alone(host, settings):
    """Anything else that asks by address gets no answer."""
    health = {"name": "127.0.0.1", "path": settings["app_health_path"]}
    answers = ask_nginx(
        host,
        settings,
        health | {"source": BALANCER},
        health | {"source": BALANCER, "name": "[::1]"},
        forwarded("203.0.113.7", **health),
        health | {"source": STRANGER},
        forwarded(BALANCER, source=STRANGER, **health),
        health | {"source": BALANCER, "path": "/"},
    )
    assert statuses(answers) == [200, 200, 200, None, None, None]


def test_http_3_is_off(host, settings):
    """A balancer passes no client's address on with it."""
    port = settings["site_https_port"]
    # after a reload, an earlier worker has the socket until its last connection is closed
    wait_until(lambda: not host.socket(f"udp://{port}").is_listening, "nginx to close its UDP sockets")
    ((status, headers, _),) = ask_nginx(host, settings, {"source": BALANCER})
    assert status == 200
    assert "alt-svc" not in headers


def test_clients_behind_one_balancer_are_limited_one_by_one(host, settings, mirror):
    """By the address that the balancer names, and not by its own; an exempt client is not limited."""
    flood = [forwarded("203.0.113.20")] * (2 * BURST)
    answers = ask_nginx(host, settings, *flood, forwarded("203.0.113.21"), *[forwarded(EXEMPT)] * (2 * BURST))
    first, others = statuses(answers[: 2 * BURST]), statuses(answers[2 * BURST :])
    assert first[: BURST + 1] == [200] * (BURST + 1)
    assert 429 in first
    assert others == [200] * (1 + 2 * BURST)
    assert {answer[1]["retry-after"] for answer in answers if answer[0] == 429} == {"1"}


def test_ipv6_clients_are_limited_by_their_64_bits_of_network(host, settings, mirror):
    """A client has as many addresses as it likes, all of them in its network."""
    flood = [forwarded(f"2001:db8:1:2:{number:x}::1") for number in range(2 * BURST)]
    answers = ask_nginx(host, settings, *flood, forwarded("2001:db8:1:3::1"), forwarded("2001:db8:2:2::1"))
    found = statuses(answers)
    assert found[: BURST + 1] == [200] * (BURST + 1)
    assert 429 in found[: 2 * BURST]
    assert found[2 * BURST :] == [200, 200]


def test_ipv4_clients_that_a_balancer_names_as_ipv6_are_limited_one_by_one(host, settings, mirror):
    """::ffff:203.0.113.7, as a balancer with one socket for both writes it: all of them are in one /64."""
    many = [forwarded(f"::ffff:203.0.113.{30 + number}") for number in range(2 * BURST)]
    flood = [forwarded("::ffff:203.0.113.22")] * (2 * BURST)
    found = statuses(ask_nginx(host, settings, *many, *flood))
    assert found[: 2 * BURST] == [200] * (2 * BURST)
    assert 429 in found[2 * BURST :]


def test_websockets_of_one_client_are_limited(host, settings):
    """The application answers here: a WebSocket counts for as long as it is open."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Origin": settings["site_url"],
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    def opened(client):
        headers = handshake | {"X-Forwarded-For": client}
        path = f"{settings['app_websocket_path']}echo/"
        return {"source": BALANCER, "path": path, "headers": [*headers.items()]}

    answers = ask_nginx(host, settings, *[opened("203.0.113.23")] * 5, opened("203.0.113.24"))
    assert statuses(answers) == [101, 101, 101, 429, 429, 101]
