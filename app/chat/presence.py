"""Who is in a room, over all processes and hosts.

Each socket is an entry that expires, and its consumer renews it: a process that is killed says no goodbye.
Each change is one transaction in Redis. (The cache's `aincr` would not do for counting: it is a get and a
set, and loses counts in between.)
"""

import asyncio
import json
import time
from collections import defaultdict
from weakref import WeakKeyDictionary

from django.conf import settings
from pergola_runtime.redispool import AsyncBoundedPool
from redis.asyncio import Redis

LIFETIME = 50  # seconds; more than two heartbeats, so that a late one takes nobody out


class InRedis:
    """A sorted set a room, scored by when each entry expires. Clocks of hosts may differ by some seconds."""

    def __init__(self):
        # a client belongs to the event loop that made it; a server has one, tests have many
        self.clients = WeakKeyDictionary()

    @property
    def client(self):
        loop = asyncio.get_running_loop()
        if loop not in self.clients:
            self.clients[loop] = Redis.from_pool(
                AsyncBoundedPool.from_url(settings.REDIS_URL, decode_responses=True)
            )
        return self.clients[loop]

    async def renew(self, room, entry):
        now, key = time.time(), f"chat:presence:{room}"
        async with self.client.pipeline(transaction=True) as commands:
            commands.zadd(key, {entry: now + LIFETIME})
            commands.zremrangebyscore(key, "-inf", now)
            commands.zrange(key, 0, -1)
            commands.expire(key, LIFETIME)
            return (await commands.execute())[2]

    async def leave(self, room, entry):
        await self.client.zrem(f"chat:presence:{room}", entry)


class InProcess:
    """Where there is no Redis there is one process."""

    def __init__(self):
        self.rooms = defaultdict(dict)

    async def renew(self, room, entry):
        now, entries = time.time(), self.rooms[room]
        entries[entry] = now + LIFETIME
        for old in [old for old, until in entries.items() if until <= now]:
            del entries[old]
        return list(entries)

    async def leave(self, room, entry):
        self.rooms[room].pop(entry, None)
        if not self.rooms[room]:
            del self.rooms[room]


in_redis, in_process = InRedis(), InProcess()


def store():
    return in_redis if settings.REDIS_URL else in_process


def entry(socket, username, name):
    """The name travels with the entry, so that nobody has to look it up."""
    return json.dumps([socket, username, name])


def people(entries):
    """[username, name] of each, once, whatever the number of their sockets."""
    return sorted({tuple(json.loads(each)[1:]) for each in entries}, key=lambda person: person[::-1])


def sockets_of(username, entries):
    return sum(json.loads(each)[1] == username for each in entries)
