"""The calls of the fan-out: one pool a process and event loop, the same code in every contestant."""

import asyncio
import os

import aiohttp
import httpx

CALLS = 3
URL = f"http://127.0.0.1:{os.environ.get('BENCH_UPSTREAM_PORT', '')}/weather"

sessions = {}
client = httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=None), timeout=60)


async def until_the_loop_ends(loop):
    """Closed with the loop's async generators; under WSGI each request has a loop of its own."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )
    try:
        yield session
    finally:
        del sessions[loop]
        await session.close()


async def pooled():
    loop = asyncio.get_running_loop()
    if loop not in sessions:
        generator = until_the_loop_ends(loop)
        sessions[loop] = generator, await anext(generator)
    return sessions[loop][1]


async def ask():
    session = await pooled()
    async with session.get(URL) as answer:
        return (await answer.json())["celsius"]


async def together():
    return sum(await asyncio.gather(*(ask() for _ in range(CALLS))))


def one_after_another():
    return sum(client.get(URL).json()["celsius"] for _ in range(CALLS))
