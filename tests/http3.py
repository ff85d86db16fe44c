"""A client of HTTP/3, which httpx does not speak."""

import asyncio
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    """As much of HTTP/3 as one GET takes."""

    async def get(self, authority, path, headers):
        self.http = H3Connection(self._quic)
        self.headers, self.body, self.ended = {}, b"", asyncio.get_running_loop().create_future()
        self.http.send_headers(
            self._quic.get_next_available_stream_id(),
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", authority.encode()),
                (b":path", path.encode()),
                *((name.lower().encode(), value.encode()) for name, value in headers.items()),
            ],
            end_stream=True,
        )
        self.transmit()
        async with asyncio.timeout(10):
            await self.ended
        return self.headers, self.body

    def quic_event_received(self, event):
        if not hasattr(self, "http"):
            return
        for part in self.http.handle_event(event):
            if isinstance(part, HeadersReceived):
                self.headers |= {name.decode(): value.decode() for name, value in part.headers}
            elif isinstance(part, DataReceived):
                self.body += part.data
            if getattr(part, "stream_ended", False) and not self.ended.done():
                self.ended.set_result(None)


async def ask(settings, authority, path, headers=None):
    """One GET by HTTP/3, with the certificate checked, as a browser does.

    Returns the headers and the body.
    """
    place = urlsplit(settings["site_url"])
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=place.hostname)
    if authority:
        configuration.load_verify_locations(str(authority))
    port = settings["nginx_public_port"]
    async with asyncio.timeout(20):
        async with connect(
            place.hostname, port, configuration=configuration, create_protocol=Client
        ) as client:
            return await client.get(place.netloc, path, headers or {})
