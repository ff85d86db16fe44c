import pytest
from channels.testing import WebsocketCommunicator
from config.asgi import application
from core.consumers import MAX_BYTES, TOO_LARGE

pytestmark = pytest.mark.usefixtures("channel_layer")
OURS = b"https://testserver"


def browser(path="/ws/echo/", origin=OURS):
    return WebsocketCommunicator(application, path, headers=[(b"origin", origin)])


@pytest.mark.parametrize("message", ["hello", b"\x00\xff", "x" * MAX_BYTES])
async def test_what_is_sent_comes_back(message):
    client = browser()
    assert (await client.connect())[0]
    key = "text_data" if isinstance(message, str) else "bytes_data"
    await client.send_to(**{key: message})
    assert await client.receive_from() == message
    await client.disconnect()


@pytest.mark.parametrize(
    "message", [{"text_data": "é" * (MAX_BYTES // 2 + 1)}, {"bytes_data": b"x" * (MAX_BYTES + 1)}]
)
async def test_a_message_that_is_too_large_ends_the_connection(message):
    client = browser()
    await client.connect()
    await client.send_to(**message)
    assert await client.receive_output() == {"type": "websocket.close", "code": TOO_LARGE}


@pytest.mark.parametrize("origin", [b"https://elsewhere.example", b"null"])
async def test_a_page_of_another_site_may_not_connect(origin):
    assert not (await browser(origin=origin).connect())[0]


async def test_an_unknown_path_is_refused_quietly():
    assert not (await browser("/ws/nothing/").connect())[0]
