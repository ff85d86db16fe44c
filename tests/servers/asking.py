"""Clients that ask again at once, each request on a connection of its own, and count what has no answer.

Here and not in tests/load: those clients go slowly, as people do, and a server that loses one request of ten
thousand when it stops has to be asked more often.
"""

import asyncio
import collections
import contextlib
import ssl
import threading

import httpx

FAST, SLOW = 12, 4
PAUSE = 0.03  # leaves two cores something for a deploy
SLOW_PATH = "/lab/async/sleep/?seconds=3"
ANSWERED = (200, 403)  # a form without its token is refused by the application


class Asking(threading.Thread):
    def __init__(self, url, authority):
        super().__init__()
        self.url = url
        self.tls = ssl.create_default_context(cafile=authority)
        self.sent, self.lost = 0, collections.Counter()
        self.ending = threading.Event()

    def run(self):
        asyncio.run(self.ask_all())

    async def ask_all(self):
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, verify=self.tls, timeout=60, limits=limits) as client:
            fast = [("GET", "/livez"), ("POST", "/visits/")] * (FAST // 2)
            await asyncio.gather(*(self.ask(client, *what) for what in [*fast, *[("GET", SLOW_PATH)] * SLOW]))

    async def ask(self, client, method, path):
        while not self.ending.is_set():
            self.sent += 1
            try:
                answer = await client.request(method, path)
            except httpx.HTTPError as error:
                self.lost[f"{method} {path}: {type(error).__name__}"] += 1
            else:
                if answer.status_code not in ANSWERED:
                    self.lost[f"{method} {path}: {answer.status_code}"] += 1
            await asyncio.sleep(PAUSE)


@contextlib.contextmanager
def asking(url, authority):
    """It goes on until the end of the block, and what is under way then is waited for."""
    clients = Asking(url, authority)
    clients.start()
    try:
        yield clients
    finally:
        clients.ending.set()
        clients.join()
