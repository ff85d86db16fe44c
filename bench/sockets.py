"""Opens WebSockets until the first refusal, then has one of them speak to all: `sockets.py MOST PATH ...`

A protocol of its own, as a library would take longer for a message than what is measured. Over unix sockets,
as nginx does: there, no number of ports is the limit. Prints a line with what was opened, waits for a line,
and prints how long a message took to reach each.
"""

import asyncio
import itertools
import json
import os
import resource
import statistics
import struct
import sys
import time

import uvloop

BATCH = 50
BROADCASTS = 5
PATIENCE = 30
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(opcode, payload):
    """A client's frame is masked; with zeros the payload stays as it is."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def frames(buffer):
    """The whole frames that it begins with as (opcode, payload), and what is left; a server masks none."""
    found = []
    while len(buffer) >= 2:
        opcode, length, start = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        if length == 126:
            if len(buffer) < 4:
                break
            (length,), start = struct.unpack("!H", buffer[2:4]), 4
        if len(buffer) < start + length:
            break
        found.append((opcode, buffer[start : start + length]))
        buffer = buffer[start + length :]
    return found, buffer


class Client(asyncio.Protocol):
    def __init__(self, heard):
        self.opened = asyncio.get_running_loop().create_future()
        self.buffer, self.heard, self.closed = b"", heard, False

    def connection_made(self, transport):
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data):
        self.buffer += data
        if not self.opened.done():
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            status = head.split(b"\r\n", 1)[0].decode()
            if " 101 " in status:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(ConnectionError(status))
            self.buffer = rest
        found, self.buffer = frames(self.buffer)
        for opcode, payload in found:
            if opcode == TEXT:
                self.heard(payload)
            elif opcode == PING:
                self.transport.write(frame(PONG, payload))

    def connection_lost(self, error):
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed during the handshake"))


class Load:
    def __init__(self, paths):
        self.paths = itertools.cycle(paths)
        self.clients = []
        self.arrivals = {}

    def heard(self, payload):
        self.arrivals.setdefault(payload, []).append(time.perf_counter())

    async def open(self):
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            _, client = await loop.create_unix_connection(lambda: Client(self.heard), next(self.paths))
            await client.opened
        self.clients.append(client)

    async def open_until(self, most):
        """The reason of the first refusal, or None."""
        while len(self.clients) < most:
            batch = [self.open() for _ in range(min(BATCH, most - len(self.clients)))]
            for result in await asyncio.gather(*batch, return_exceptions=True):
                if isinstance(result, Exception):
                    return f"{type(result).__name__}: {result}".rstrip(": ")
        return None

    async def broadcast(self, text):
        """Milliseconds until each client has it."""
        began = time.perf_counter()
        self.clients[0].transport.write(frame(TEXT, text))
        listening = sum(not client.closed for client in self.clients)
        while len(self.arrivals.get(text, ())) < listening and time.perf_counter() - began < PATIENCE:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return [1000 * (moment - began) for moment in self.arrivals.get(text, ())], listening


async def main(most, paths):
    load = Load(paths)
    began = time.monotonic()
    refusal = await load.open_until(most)
    opened = {
        "connections": len(load.clients),
        "refusal": refusal,
        "opened_seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(opened), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    runs = [await load.broadcast(b"news %d" % number) for number in range(BROADCASTS)]

    def median(figure):
        return round(statistics.median(figure(sorted(times)) for times, _ in runs if times), 1)

    print(
        json.dumps(
            {
                "broadcast_p50_ms": median(lambda times: times[len(times) // 2]),
                "broadcast_p99_ms": median(lambda times: times[len(times) * 99 // 100]),
                "broadcast_last_ms": median(lambda times: times[-1]),
                "missed": sum(listening - len(times) for times, listening in runs),
            }
        ),
        flush=True,
    )
    os._exit(0)  # closing ten thousand one by one is of no interest


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
