"""A room over a WebSocket. Frames are JSON objects with a `type`.

From the client: {"type": "message", "key": a UUID of its own, "text": ...}
To the client:   welcome, messages, stored (its message's id), people, error (with `retry` in seconds where
                 the same message may be sent again later)

Nothing is lost and nothing doubled, because only the database is believed. The channel layer delivers at most
once: what comes over it is a hint that there is something, and the consumer then sends whatever the database
has behind the last number that it sent. A hint that got lost is made up for by the next one, or by the next
heartbeat. A client that was away says the last id it has seen, and gets the rest.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import time
import uuid
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError
from redis.exceptions import RedisError

from chat import presence, services
from chat.models import MAX_TEXT, Room

logger = logging.getLogger(__name__)

# Daphne sends no code between 1001 and 2999. All are sent after the handshake: a browser is not told why one
# was refused.
BAD_REQUEST, LOG_IN, UNKNOWN_ROOM, TOO_LARGE, TRY_LATER, TOO_MANY = 4400, 4401, 4404, 4009, 4013, 4429

MAX_BYTES = 16 * 1024  # the longest text fits in, also where each of its characters is an escape
BURST, PER_SECOND = 20, 2  # frames
MAX_REFUSED = 50  # in a row; who does not listen is sent away
MAX_SOCKETS_OF_ONE = 10  # in one room, so that the rate has a bound over all of them
HEARTBEAT = 20
PAUSE = 1  # between two times of telling who is here
MAX_PEOPLE = 50


class FrameError(Exception):
    """With a sentence for the client, and its message's key where that was told."""

    def __init__(self, sentence, key=None):
        super().__init__(sentence)
        self.key = key


def instance():
    """The name that Pergola gives each Daphne process, such as blue-1."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--instance")
    return parser.parse_known_args()[0].instance


class ChatConsumer(AsyncWebsocketConsumer):
    room = heart = group = entry = None
    over = False

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            # here and not in disconnect(), which does not run after an error
            await self.leave()

    async def connect(self):
        await self.accept()
        self.user = self.scope["user"]
        if not self.user.is_authenticated:
            return await self.end(LOG_IN, "log in first")
        try:
            since = self.since()
        except ValueError:
            return await self.end(BAD_REQUEST, "since is no number")
        try:
            await self.enter(since)
        except Room.DoesNotExist:
            await self.end(UNKNOWN_ROOM, "there is no such room")
        except (DatabaseError, RedisError, OSError) as error:
            logger.warning("chat: cannot enter: %s: %s", type(error).__name__, error)
            await self.end(TRY_LATER, "try again later")

    def since(self):
        query = parse_qs(self.scope["query_string"].decode("ascii", "replace"))
        text = query.get("since", [""])[-1]
        if text and not re.fullmatch("[0-9]{1,18}", text):
            raise ValueError(text)
        return int(text) if text else None

    async def enter(self, since):
        self.tokens, self.filled, self.refused = BURST, time.monotonic(), 0
        self.sending = asyncio.Lock()
        self.news = asyncio.Event()
        slug = self.scope["url_route"]["kwargs"]["slug"]
        self.group = f"chat.{(await services.get(slug)).pk}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        # Only now the look at what there is: what is stored before it is in it, what is stored after it is
        # hinted at, in between both.
        room = await services.get(slug)
        entry = presence.entry(uuid.uuid4().hex, self.user.get_username(), services.name_of(self.user))
        entries = await presence.store().renew(room.pk, entry)
        self.room, self.entry = room, entry
        if presence.sockets_of(self.user.get_username(), entries) > MAX_SOCKETS_OF_ONE:
            await self.end(TOO_MANY, "too many windows")
            return
        # more than there is: the database was put back to an earlier day, and the client begins anew
        reset = since is not None and since > room.last
        wanted = room.last - services.HISTORY if since is None or reset else since
        self.sent = max(0, wanted, room.last - services.MAX_REPLAY)
        await self.tell(
            "welcome",
            room={"slug": room.slug, "name": room.name},
            user={"username": self.user.get_username(), "name": services.name_of(self.user)},
            process=os.getpid(),
            instance=instance(),
            last=room.last,
            skipped=max(0, self.sent - wanted) if wanted > 0 and not reset else 0,
            reset=reset,
        )
        await self.tell_people(entries)
        await self.catch_up(room.last)
        self.heart = asyncio.create_task(self.beat())
        await self.hint({"type": "people.changed"})

    async def leave(self):
        if self.heart:
            self.heart.cancel()
        with contextlib.suppress(RedisError, OSError):
            if self.group:
                await self.channel_layer.group_discard(self.group, self.channel_name)
            if self.entry:
                await presence.store().leave(self.room.pk, self.entry)
                await self.hint({"type": "people.changed"})

    async def end(self, code, reason):
        self.over = True
        await self.close(code, reason)

    async def tell(self, kind, **fields):
        if not self.over:
            await self.send(json.dumps({"type": kind, **fields}, ensure_ascii=False))

    async def tell_error(self, sentence, **fields):
        await self.tell("error", error=sentence, **fields)

    # --- from the client

    async def receive(self, text_data=None, bytes_data=None):
        if self.over or self.room is None:
            return None
        if len(bytes_data if bytes_data is not None else text_data.encode()) > MAX_BYTES:
            return await self.end(TOO_LARGE, "a frame is too large")
        try:
            key, text = read(text_data)
            if not (retry := self.too_fast()):
                await self.store(key, text)
            elif not await self.refuse():
                await self.tell_error("slow down", key=key, retry=retry)
        except FrameError as error:
            # a bad frame counts as any other
            if not self.too_fast() or not await self.refuse():
                await self.tell_error(str(error), key=error.key)
        except Room.DoesNotExist:
            await self.end(UNKNOWN_ROOM, "the room is gone")
        except DatabaseError as error:
            logger.warning("chat: cannot store: %s: %s", type(error).__name__, error)
            await self.tell_error("could not be stored", key=key, retry=5)

    def too_fast(self):
        """Seconds until there is room for one more frame; nothing where there is."""
        now = time.monotonic()
        self.tokens = min(BURST, self.tokens + (now - self.filled) * PER_SECOND)
        self.filled = now
        if self.tokens < 1:
            return round((1 - self.tokens) / PER_SECOND + 0.1, 1)
        self.tokens -= 1
        self.refused = 0
        return None

    async def refuse(self):
        """Whether that was one too many, and the end."""
        self.refused += 1
        if self.refused > MAX_REFUSED:
            await self.end(TOO_MANY, "too many frames")
        return self.over

    async def store(self, key, text):
        number, _ = await services.post(self.room.pk, self.user.pk, uuid.UUID(key), text)
        # The answer comes once the message is committed. Without it, the client sends the message again.
        await self.tell("stored", key=key, id=number)
        await self.hint({"type": "message.stored", "last": number})
        await self.catch_up(number)

    async def hint(self, event):
        try:
            await self.channel_layer.group_send(self.group, event)
        except (RedisError, OSError) as error:
            logger.warning("chat: the others learn it later: %s: %s", type(error).__name__, error)

    # --- from the channel layer

    async def message_stored(self, event):
        try:
            await self.catch_up(event["last"])
        except DatabaseError as error:
            logger.warning("chat: read at the next heartbeat: %s: %s", type(error).__name__, error)

    async def people_changed(self, event):
        self.news.set()

    # --- to the client

    async def catch_up(self, last):
        """Send what the database has behind what was sent, if that is not all up to `last`."""
        async with self.sending:  # the heartbeat comes here too
            while self.sent < last and not self.over:
                messages = await services.after(self.room.pk, self.sent)
                if not messages:
                    return  # deleted
                await self.tell("messages", messages=messages)
                self.sent = messages[-1]["id"]

    async def tell_people(self, entries):
        people = presence.people(entries)
        listed = [{"username": username, "name": name} for username, name in people[:MAX_PEOPLE]]
        await self.tell("people", count=len(people), people=listed)

    async def beat(self):
        """Renew our entry, make up for hints that were lost, and tell who is here, at most once a PAUSE."""
        next_look = time.monotonic() + HEARTBEAT
        while not self.over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next_look - time.monotonic()):
                    await self.news.wait()
            self.news.clear()
            try:
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + HEARTBEAT
                    await self.look()
                await self.tell_people(await presence.store().renew(self.room.pk, self.entry))
            except (DatabaseError, RedisError, OSError) as error:
                logger.warning("chat: a heartbeat is late: %s: %s", type(error).__name__, error)
            await asyncio.sleep(PAUSE)

    async def look(self):
        last, ours = await services.look(self.room.pk, self.scope["session"].session_key, self.user.pk)
        if last is None:
            await self.end(UNKNOWN_ROOM, "the room is gone")
        elif not ours:
            await self.end(LOG_IN, "logged out")
        else:
            await self.catch_up(last)


def read(frame):
    """(key, text) of a message, or FrameError."""
    if frame is None:
        raise FrameError("a frame is text, not bytes")
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        raise FrameError("a frame is JSON") from None
    if not isinstance(message, dict) or message.get("type") != "message":
        raise FrameError('a frame is an object of the type "message"')
    key, text = message.get("key"), message.get("text")
    if not isinstance(key, str) or not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key):
        raise FrameError("key is a UUID, with hyphens and in small letters")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        raise FrameError(f"text has 1 to {MAX_TEXT} characters", key)
    if re.search("[\0\ud800-\udfff]", text):  # JSON has them, text in a database has not
        raise FrameError("text has a character that is none", key)
    return key, text
