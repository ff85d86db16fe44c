import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

# The layer that Channels takes by default loses an idle socket after some seconds.
IDLE_SECONDS = 13


@pytest.fixture
def socket(url, tls):
    address = url.replace("https://", "wss://") + "/ws/echo/"
    return lambda origin=url: connect(address, ssl=tls, origin=origin, open_timeout=10)


@pytest.mark.parametrize("message", ["hello", "안녕, ☂", b"\x00\xff\x80", "x" * 60_000], ids=len)
async def test_what_is_sent_comes_back(socket, message):
    async with socket() as open_one:
        await open_one.send(message)
        async with asyncio.timeout(10):
            assert await open_one.recv() == message


async def test_a_page_of_another_site_cannot_open_one(socket):
    """A browser sends its cookies along, whoever wrote the page."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(origin="https://evil.example.org"):
            pass
    assert refused.value.response.status_code == 403


async def test_an_unknown_path_is_refused(url, tls):
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url.replace("https://", "wss://") + "/ws/nothing/", ssl=tls, origin=url):
            pass
    assert refused.value.response.status_code == 403


async def test_an_idle_one_stays_open(socket):
    """Longer than the limits that lie in wait on the way: of the proxy, of Redis, of the channel layer."""
    async with socket() as open_one:
        await asyncio.sleep(IDLE_SECONDS)  # being idle is what is tested
        await open_one.send("still here")
        async with asyncio.timeout(10):
            assert await open_one.recv() == "still here"


async def test_many_are_open_at_once(socket):
    """More than there are processes, so that each process holds several."""

    async def say(number):
        async with socket() as open_one:
            await open_one.send(str(number))
            async with asyncio.timeout(10):
                return await open_one.recv()

    assert await asyncio.gather(*(say(number) for number in range(20))) == [
        str(number) for number in range(20)
    ]
