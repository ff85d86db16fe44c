"""Behind a balancer that passes TCP through: the PROXY protocol names the client."""

import ipaddress
import json
import struct

import pytest
from infra.nginx_tools import ask_nginx, mirrored, nginx_with
from waiting import wait_until

# full: two converges
pytestmark = [pytest.mark.disruptive, pytest.mark.full, pytest.mark.hosts("web")]
EVIDENCE = ["nginx", "test-mirror"]

# addresses of the host itself, which asks
BALANCER, STRANGER = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module", autouse=True)
def behind_a_balancer(servers, host):
    with nginx_with(servers, host, nginx_trusted_proxies=[BALANCER], nginx_proxy_protocol=True):
        yield


@pytest.fixture
def mirror(host, settings):
    with mirrored(host, settings):
        yield


# https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# of a balancer's own connections, such as health checks
UNKNOWN = b"PROXY UNKNOWN\r\n"
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 0)


def version_1(client):
    address = ipaddress.ip_address(client)
    server = {4: "127.0.0.1", 6: "::1"}[address.version]
    return f"PROXY TCP{address.version} {client} {server} 4711 443\r\n".encode()


def version_2(client):
    address = ipaddress.ip_address(client)
    server = ipaddress.ip_address({4: "127.0.0.1", 6: "::1"}[address.version])
    addresses = address.packed + server.packed + struct.pack("!HH", 4711, 443)
    family = {4: 0x11, 6: 0x21}[address.version]
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


def request(first, source=BALANCER, **more):
    return {"first": first.hex(), "source": source, **more}


def client_of(answer):
    """The address that the application saw."""
    status, _, body = answer
    assert status == 200
    return {name.lower(): value for name, value in json.loads(body)}["x-forwarded-for"]


def statuses(answers):
    return [answer and answer[0] for answer in answers]


VERSIONS = [version_1, version_2]
CLIENTS = ["203.0.113.7", "2001:db8::7"]


def test_the_protocols_header_names_the_client(host, settings, mirror):
    requests = [request(version(client)) for version in VERSIONS for client in CLIENTS]
    assert [client_of(answer) for answer in ask_nginx(host, settings, *requests)] == CLIENTS * 2


def test_a_clients_own_x_forwarded_for_is_ignored(host, settings, mirror):
    """It passes through such a balancer as the client wrote it."""
    headers = [["X-Forwarded-For", "198.51.100.9"]]
    requests = [request(version(client), headers=headers) for version in VERSIONS for client in CLIENTS]
    assert [client_of(answer) for answer in ask_nginx(host, settings, *requests)] == CLIENTS * 2


def test_the_header_of_another_peer_is_ignored(host, settings, mirror):
    """Also if it claims to come from the balancer."""
    claimed = [*CLIENTS, BALANCER]
    requests = [request(version(client), STRANGER) for version in VERSIONS for client in claimed]
    assert [client_of(answer) for answer in ask_nginx(host, settings, *requests)] == [STRANGER] * 6


def test_a_connection_without_the_header_is_closed(host, settings):
    plain = {"source": BALANCER, "port": settings["site_http_port"], "tls": False}
    assert ask_nginx(host, settings, {"source": BALANCER}, plain) == [None, None]


def test_plain_http_redirects(host, settings):
    plain = {"port": settings["site_http_port"], "tls": False, "name": settings["site_domain"]}
    answers = ask_nginx(host, settings, *(request(version("203.0.113.7"), **plain) for version in VERSIONS))
    assert statuses(answers) == [301, 301]
    assert {headers["location"] for _, headers, _ in answers} == {settings["site_url"] + "/"}


def test_a_health_check_by_address_is_answered_to_the_balancer_alone(host, settings):
    """With each header that a balancer may send for itself; claiming its address does not help."""
    own = [UNKNOWN, LOCAL, version_1(BALANCER), version_2(BALANCER)]
    health = {"name": "127.0.0.1", "path": settings["app_health_path"]}
    balancer = ask_nginx(host, settings, *(request(first, **health) for first in own))
    stranger = ask_nginx(host, settings, *(request(first, STRANGER, **health) for first in own))
    assert statuses(balancer) == [200] * 4
    assert statuses(stranger) == [None] * 4


def test_http_3_is_off(host, settings):
    port = settings["site_https_port"]
    # after a reload, an earlier worker has the socket until its last connection is closed
    wait_until(lambda: not host.socket(f"udp://{port}").is_listening, "nginx to close its UDP sockets")
    ((status, headers, _),) = ask_nginx(host, settings, request(version_1("203.0.113.7")))
    assert status == 200
    assert "alt-svc" not in headers
