"""What an application sees of a request that nginx passed on over a unix socket."""

import asyncio

import pytest
from pergola_runtime import logs
from pergola_runtime.behind_nginx import behind_nginx

UNIX = ("/run/app/blue/web.sock", None)  # as uvicorn has it


def seen(headers, **scope):
    """The scope that an application gets."""
    found = {}

    async def application(scope, receive, send):
        found.update(scope, request_id=logs.request_id.get())

    given = {"type": "http", "scheme": "http", "server": UNIX, "client": None} | scope
    given["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(behind_nginx(application)(given, None, None))
    return found


FROM_NGINX = {
    "host": "app.example.org",
    "x-forwarded-for": "192.0.2.7",
    "x-forwarded-proto": "https",
    "x-request-id": "5ca1ab1e",
}


def test_the_clients_address_and_the_scheme_are_those_that_nginx_saw():
    scope = seen(FROM_NGINX)
    assert (scope["client"], scope["scheme"]) == (("192.0.2.7", 0), "https")


def test_a_websocket_has_the_scheme_of_websockets():
    assert seen(FROM_NGINX, type="websocket", scheme="ws")["scheme"] == "wss"


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("app.example.org", ("app.example.org", 443)),
        ("app.example.org:8443", ("app.example.org", 8443)),
        ("[2001:db8::1]", ("[2001:db8::1]", 443)),
        ("[2001:db8::1]:8443", ("[2001:db8::1]", 8443)),
        ("app.example.org:", ("app.example.org", 443)),
    ],
)
def test_the_servers_name_and_port_are_those_that_the_client_asked(host, server):
    """A unix socket has no port: Django would make the text "None" of it."""
    assert seen(FROM_NGINX | {"host": host})["server"] == server


@pytest.mark.parametrize("server", [None, ("/run/app/blue/web.sock", 0), ("/", "r")])
def test_what_other_servers_give_for_a_unix_socket_is_no_name(server):
    """Hypercorn and Daphne, Granian, and gunicorn's own ASGI worker."""
    assert seen(FROM_NGINX, server=server)["server"] == ("app.example.org", 443)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_without_a_port_it_is_the_schemes(scheme, port):
    assert seen(FROM_NGINX | {"x-forwarded-proto": scheme})["server"] == ("app.example.org", port)


def test_a_server_on_tcp_keeps_its_own_name_and_port():
    assert seen(FROM_NGINX, server=("127.0.0.1", 8000))["server"] == ("127.0.0.1", 8000)


def test_without_nginx_the_scope_has_no_client():
    assert seen({"host": "localhost"})["client"] is None


def test_a_scheme_that_is_none_is_not_taken():
    assert seen(FROM_NGINX | {"x-forwarded-proto": "gopher"})["scheme"] == "http"


def test_the_log_has_the_requests_id_and_no_other_ones():
    assert seen(FROM_NGINX)["request_id"] == "5ca1ab1e"
    assert seen({"host": "localhost"})["request_id"] == "-"


def test_lifespan_events_pass_unchanged():
    found = []

    async def application(scope, receive, send):
        found.append(scope)

    asyncio.run(behind_nginx(application)({"type": "lifespan"}, None, None))
    assert found == [{"type": "lifespan"}]


def sent(content_type):
    """The headers that the server gets of an answer."""
    messages = []

    async def application(scope, receive, send):
        headers = [(b"Content-Type", content_type.encode())]  # as Django writes it
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    async def send(message):
        messages.append(message)

    asyncio.run(behind_nginx(application)({"type": "http", "headers": [], "server": UNIX}, None, send))
    assert messages[1]["body"] == b"data: 1\n\n"
    return dict(messages[0]["headers"])


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_server_sent_events_are_not_buffered(content_type):
    assert sent(content_type)[b"x-accel-buffering"] == b"no"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/x-ndjson", "text/event"])
def test_every_other_answer_is_buffered(content_type):
    assert b"x-accel-buffering" not in sent(content_type)


def test_an_answer_without_headers_passes():
    messages = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})

    async def send(message):
        messages.append(message)

    asyncio.run(behind_nginx(application)({"type": "http", "headers": [], "server": UNIX}, None, send))
    assert messages == [{"type": "http.response.start", "status": 204}]
