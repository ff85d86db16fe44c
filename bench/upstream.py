"""The upstream of the fan-out: answers every GET after 100 ms. `python -m bench.upstream PORT`

A protocol and no framework, so that it is never what a contestant waits for: it looks for the end of a
request, and sends bytes that were made before.
"""

import asyncio
import sys

import uvloop

SECONDS = 0.1
BODY = b'{"celsius": 21}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)


class Upstream(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.later = asyncio.get_running_loop().call_later

    def data_received(self, data):
        # a pooled client sends the next request when it has the answer to the last, and ours send no bodies
        if data.endswith(b"\r\n\r\n"):
            self.later(SECONDS, self.answer)

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def main(port):
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
