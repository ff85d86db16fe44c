"""The HTTP clients of this process: made once, kept with their connections, closed when the process stops.

A client belongs to the event loop it was first used on, so there is one pool a loop. In a Uvicorn worker that
is one a process; a management command, a test or `async_to_sync` under WSGI has loops of its own.

Who closes them? Django answers no lifespan event, `atexit` comes when the loop is gone and nothing can be
awaited any more, and a signal comes while requests still run that need the clients. But whoever ends a loop
properly awaits `loop.shutdown_asyncgens()`, which closes each async generator that was begun on it:
asyncio.run() does, asgiref's async_to_sync does, and so does Pergola's gunicorn worker after the last request
(the stock one dies of its repeated SIGTERM before that, and the kernel closes the connections). So an async
generator holds the clients, and they go when it is closed.
"""

import asyncio
import ssl
from dataclasses import dataclass

import aiohttp

# httpx imports these two when it makes its first client and when that first connects: in the event loop,
# where a fifth of a second holds every other request of the worker.
import anyio._backends._asyncio  # noqa: F401
import httpcore  # noqa: F401
import httpx
from django.conf import settings

BASE_URL = "http://upstreams"  # only the Host header: the connection goes to a unix socket
CONNECTIONS = 300  # a pool; what waits longer for a free one than its timeout counts as late

# Nothing here speaks TLS, and httpx would read the system's whole list of authorities for each client. Where
# you call https://, leave `verify` out.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Pool:
    httpx: httpx.AsyncClient
    aiohttp: aiohttp.ClientSession


pools = {}


async def until_the_loop_ends():
    loop = asyncio.get_running_loop()
    pool = Pool(
        httpx.AsyncClient(
            base_url=BASE_URL,
            transport=httpx.AsyncHTTPTransport(
                uds=str(settings.UPSTREAMS_SOCKET),
                verify=NO_AUTHORITIES,
                limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=20),
            ),
            timeout=None,  # noqa: S113 - the caller's asyncio.timeout() is for the whole call
            trust_env=False,  # a proxy for the internet is none for a unix socket
        ),
        aiohttp.ClientSession(
            BASE_URL,
            connector=aiohttp.UnixConnector(str(settings.UPSTREAMS_SOCKET), limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),  # the pool serves all users: none may see another's cookies
        ),
    )
    try:
        yield pool
    finally:
        del pools[loop]
        await pool.httpx.aclose()
        await pool.aiohttp.close()


async def pool():
    loop = asyncio.get_running_loop()
    if loop not in pools:
        generator = until_the_loop_ends()
        # It awaits nothing before its yield, so that no other task comes between and makes a second pool.
        # The generator is kept as well: forgotten, it would be closed at once.
        pools[loop] = generator, await anext(generator)
    return pools[loop][1]


def blocking():
    """For `def` views, in a `with`: one connection, used call after call."""
    transport = httpx.HTTPTransport(uds=str(settings.UPSTREAMS_SOCKET), verify=NO_AUTHORITIES)
    return httpx.Client(base_url=BASE_URL, transport=transport, trust_env=False)
