import asyncio
import re
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    """As much of HTTP/3 as one GET takes."""

    async def get(self, authority, path):
        self.http = H3Connection(self._quic)
        self.headers, self.body, self.ended = {}, b"", asyncio.get_running_loop().create_future()
        self.http.send_headers(
            self._quic.get_next_available_stream_id(),
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", authority.encode()),
                (b":path", path.encode()),
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


def test_answers_name_http_3(client, settings):
    """A browser comes back over it only when it was told."""
    named = client.get("/livez").headers["alt-svc"]
    assert re.match(rf'h3=":{settings["site_https_port"]}"', named)


async def test_http_3_answers(url, settings, authority):
    """With the certificate checked, as a browser does."""
    place = urlsplit(url)
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=place.hostname)
    if authority:
        configuration.load_verify_locations(str(authority))
    port = settings["site_https_port"]
    async with asyncio.timeout(20):
        async with connect(
            place.hostname, port, configuration=configuration, create_protocol=Client
        ) as client:
            headers, body = await client.get(place.netloc, settings["app_health_path"])
    assert headers[":status"] == "200", (headers, body)
    assert headers["content-type"] == "application/json"
    assert len(body) == int(headers["content-length"])
