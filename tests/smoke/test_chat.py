"""The chat, as far as it shows itself to somebody who does not log in."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

LOG_IN = 4401  # app/README.md


@pytest.fixture
def socket(url, tls):
    address = url.replace("https://", "wss://") + "/ws/chat/%EB%B9%84%EB%8F%99%EA%B8%B0/"
    return lambda origin=url: connect(address, ssl=tls, origin=origin, open_timeout=10)


async def test_who_is_not_logged_in_is_told_so(socket):
    """After the handshake, as a browser does not tell a page why one was refused."""
    async with socket() as nobody, asyncio.timeout(10):
        with pytest.raises(ConnectionClosed):
            await nobody.recv()
    assert nobody.close_code == LOG_IN


async def test_a_page_of_another_site_cannot_listen_in(socket):
    """A browser sends its cookies along, whoever wrote the page."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(origin="https://evil.example.org"):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/chat/", "/chat/lobby/"])
def test_the_pages_ask_to_log_in(client, path):
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"/login/?next={path}"
