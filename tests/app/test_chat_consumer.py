"""A room over a WebSocket, in one process.

Sync functions around the coroutines on purpose: async_to_sync runs the consumers' queries back in the test's
own thread, and so inside the test's transaction.
"""

import asyncio
import contextlib
import functools
import json
import unicodedata
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from chat import consumers, services
from chat.models import MAX_TEXT, Message, Room
from config.asgi import application
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("channel_layer")]
PATIENCE = 10


@pytest.fixture(autouse=True)
def one_process(settings, monkeypatch):
    settings.REDIS_URL = ""
    monkeypatch.setattr(consumers, "PAUSE", 0.05)
    # Channels closes connections after each call, and would end the test's transaction: like Django's client,
    # these tests do without.
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)


@pytest.fixture
def mina():
    return User.objects.create_user("mina", first_name="미나", last_name="김")


@pytest.fixture
def jonas():
    return User.objects.create_user("jonas")


@pytest.fixture
def room(mina):
    return Room.objects.create(name="비동기 장고", slug="비동기-장고", made_by=mina)


def in_one_thread(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        async_to_sync(test)(*args, **kwargs)

    return run


@sync_to_async
def session_of(user):
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


class Browser:
    def __init__(self, room, cookie="", query="", origin=b"https://testserver"):
        path = f"/ws/chat/{room if isinstance(room, str) else room.slug}/{query}"
        headers = [(b"origin", origin), (b"cookie", f"sessionid={cookie}".encode())]
        self.socket = WebsocketCommunicator(application, path, headers=headers)

    async def __aenter__(self):
        accepted, _ = await self.socket.connect(PATIENCE)
        assert accepted
        return self

    async def __aexit__(self, *error):
        # after an error of the consumer, too: the test says what it expected
        with contextlib.suppress(Exception):
            await self.socket.disconnect(timeout=PATIENCE)

    async def frame(self):
        return json.loads(await self.socket.receive_from(PATIENCE))

    async def hear(self, kind):
        """The next frame of that type; who comes and goes is told at any time."""
        while (frame := await self.frame())["type"] != kind:
            assert frame["type"] == "people", frame
        return frame

    async def texts(self):
        return [message["text"] for message in (await self.hear("messages"))["messages"]]

    async def say(self, text, key=None, **rest):
        key = key or str(uuid4())
        await self.socket.send_to(text_data=json.dumps({"type": "message", "key": key, "text": text} | rest))
        return key

    async def end(self):
        while (output := await self.socket.receive_output(PATIENCE))["type"] == "websocket.send":
            pass
        assert output["type"] == "websocket.close"
        return output["code"]


async def fill(room, user, count):
    for number in range(1, count + 1):
        await services.post(room.pk, user.pk, uuid4(), f"message {number}")


@in_one_thread
async def test_what_one_says_is_stored_and_then_heard_by_all(room, mina, jonas):
    async with (
        Browser(room, await session_of(mina)) as hers,
        Browser(room, await session_of(jonas)) as his,
    ):
        welcome = await hers.hear("welcome")
        assert welcome["room"] == {"slug": "비동기-장고", "name": "비동기 장고"}
        assert welcome["user"] == {"username": "mina", "name": "미나 김"}
        assert isinstance(welcome["process"], int)
        assert welcome["instance"] is None
        await his.hear("welcome")
        key = await hers.say("안녕, 장고 ☂")
        assert await hers.hear("stored") == {"type": "stored", "key": key, "id": 1}
        (message,) = (await his.hear("messages"))["messages"]
        assert message == (await hers.hear("messages"))["messages"][0]
        assert message | {"at": ""} == {
            "id": 1,
            "key": key,
            "author": "mina",
            "name": "미나 김",
            "text": "안녕, 장고 ☂",
            "at": "",
        }
        assert await Message.objects.aget(room=room, number=1, text="안녕, 장고 ☂", author=mina)


@in_one_thread
async def test_who_comes_back_gets_what_was_said_since(room, mina):
    await fill(room, mina, 5)
    async with Browser(room, await session_of(mina), "?since=3") as back:
        assert (await back.hear("welcome"))["skipped"] == 0
        assert await back.texts() == ["message 4", "message 5"]


@in_one_thread
async def test_a_newcomer_gets_the_last_of_the_history(room, mina, monkeypatch):
    monkeypatch.setattr(services, "HISTORY", 3)
    await fill(room, mina, 5)
    async with Browser(room, await session_of(mina)) as new:
        assert (await new.hear("welcome"))["last"] == 5
        assert await new.texts() == ["message 3", "message 4", "message 5"]


@in_one_thread
async def test_a_long_absence_is_replayed_in_batches_and_what_is_left_out_is_told(room, mina, monkeypatch):
    monkeypatch.setattr(services, "MAX_REPLAY", 5)
    monkeypatch.setattr(services, "BATCH", 3)
    await fill(room, mina, 9)
    async with Browser(room, await session_of(mina), "?since=2") as back:
        assert (await back.hear("welcome"))["skipped"] == 2
        assert await back.texts() == ["message 5", "message 6", "message 7"]
        assert await back.texts() == ["message 8", "message 9"]


@in_one_thread
async def test_who_has_seen_more_than_there_is_begins_anew(room, mina):
    """The database came out of a backup: going on from there, the client would miss what is said next."""
    await fill(room, mina, 2)
    async with Browser(room, await session_of(mina), "?since=700") as back:
        assert (await back.hear("welcome"))["reset"] is True
        assert await back.texts() == ["message 1", "message 2"]


@in_one_thread
async def test_sent_again_it_is_the_same_message(room, mina):
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        key = await hers.say("once")
        assert (await hers.hear("stored"))["id"] == 1
        assert await hers.texts() == ["once"]
        await hers.say("once", key)
        assert await hers.hear("stored") == {"type": "stored", "key": key, "id": 1}
        await hers.say("next")
        assert (await hers.hear("stored"))["id"] == 2
        assert await hers.texts() == ["next"]


@in_one_thread
async def test_the_key_of_one_is_not_the_key_of_another(room, mina, jonas):
    key = uuid4()
    assert await services.post(room.pk, mina.pk, key, "hers") == (1, True)
    assert await services.post(room.pk, jonas.pk, key, "his") == (2, True)
    assert await services.post(room.pk, mina.pk, key, "hers") == (1, False)


@in_one_thread
async def test_hints_out_of_order_and_twice_change_nothing(room, mina):
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await fill(room, mina, 2)
        for last in (2, 1, 2):
            await get_channel_layer().group_send(f"chat.{room.pk}", {"type": "message.stored", "last": last})
        assert await hers.texts() == ["message 1", "message 2"]
        await hers.say("the next thing that she hears")
        await hers.hear("stored")
        assert await hers.texts() == ["the next thing that she hears"]


@in_one_thread
async def test_without_a_hint_it_comes_at_the_next_heartbeat(room, mina, monkeypatch):
    """The channel layer delivers at most once."""
    monkeypatch.setattr(consumers, "HEARTBEAT", 0.1)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await fill(room, mina, 1)
        assert await hers.texts() == ["message 1"]


@in_one_thread
async def test_what_is_stored_while_one_enters_is_heard_at_once(room, mina, monkeypatch):
    layer = get_channel_layer()
    join = layer.group_add

    async def slowly(*args):
        await fill(room, mina, 1)
        await join(*args)

    monkeypatch.setattr(layer, "group_add", slowly)
    async with Browser(room, await session_of(mina)) as hers:
        assert (await hers.hear("welcome"))["last"] == 1
        assert await hers.texts() == ["message 1"]


@in_one_thread
async def test_a_deleted_message_leaves_a_gap_and_nothing_else(room, mina):
    await fill(room, mina, 3)
    await Message.objects.filter(number=2).adelete()
    async with Browser(room, await session_of(mina), "?since=0") as hers:
        await hers.hear("welcome")
        assert await hers.texts() == ["message 1", "message 3"]


@in_one_thread
async def test_the_others_see_who_comes_and_goes(room, mina, jonas):
    async with Browser(room, await session_of(mina)) as hers:

        async def until(*names):
            while [person["name"] for person in (await hers.hear("people"))["people"]] != list(names):
                pass

        await hers.hear("welcome")
        await until("미나 김")
        async with Browser(room, await session_of(jonas)):
            await until("jonas", "미나 김")
        await until("미나 김")


@in_one_thread
async def test_who_is_not_logged_in_hears_why(room):
    async with Browser(room) as nobody:
        assert await nobody.end() == consumers.LOG_IN


@in_one_thread
async def test_who_logs_out_elsewhere_is_out_here_too(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "HEARTBEAT", 0.1)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await Session.objects.all().adelete()
        assert await hers.end() == consumers.LOG_IN


@in_one_thread
async def test_a_user_who_is_locked_out_is_out_here_too(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "HEARTBEAT", 0.1)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await User.objects.filter(pk=mina.pk).aupdate(is_active=False)
        assert await hers.end() == consumers.LOG_IN


@in_one_thread
async def test_a_room_that_is_deleted_meanwhile_ends(room, mina):
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await Room.objects.all().adelete()
        await hers.say("anybody?")
        assert await hers.end() == consumers.UNKNOWN_ROOM


@in_one_thread
async def test_without_redis_one_is_told_to_try_again(room, mina, settings, caplog):
    """And not let in half: who is not in the group would hear each message only at a heartbeat."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    async with Browser(room, await session_of(mina)) as hers:
        assert await hers.end() == consumers.TRY_LATER
    assert "cannot enter: ConnectionError" in caplog.text


@in_one_thread
async def test_a_page_of_another_site_may_not_connect(room, mina):
    other = Browser(room, await session_of(mina), origin=b"https://elsewhere.example")
    assert not (await other.socket.connect())[0]


@pytest.mark.parametrize("slug", ["nothing", "없는-방", "x" * 240])
@in_one_thread
async def test_an_unknown_room_is_told(mina, slug):
    async with Browser(slug, await session_of(mina)) as hers:
        assert await hers.end() == consumers.UNKNOWN_ROOM


@in_one_thread
async def test_a_room_is_found_in_either_spelling_of_unicode(room, mina):
    async with Browser(unicodedata.normalize("NFD", room.slug), await session_of(mina)) as hers:
        assert (await hers.hear("welcome"))["room"]["slug"] == room.slug


@pytest.mark.parametrize("since", ["abc", "-1", "1.5", "9" * 19, "٣", "%00"])
@in_one_thread
async def test_a_since_that_is_no_number_is_told(room, mina, since):
    async with Browser(room, await session_of(mina), f"?since={since}") as hers:
        assert await hers.end() == consumers.BAD_REQUEST


KEY = "0b0f1c3e-7c5a-4f43-9a0e-5d6b3f1f2a10"
GOOD = {"type": "message", "key": KEY, "text": "x"}
BAD = [
    "",
    "{",
    "[" * 8000,
    *map(
        json.dumps,
        [
            None,
            [],
            "text",
            {},
            GOOD | {"type": "shout"},
            GOOD | {"type": ["message"]},
            GOOD | {"key": None},
            GOOD | {"key": 7},
            GOOD | {"key": "no UUID"},
            GOOD | {"text": None},
            GOOD | {"text": 5},
            GOOD | {"text": "  "},
            GOOD | {"text": "\0"},
            GOOD | {"text": "\ud800"},
            GOOD | {"text": "x" * (MAX_TEXT + 1)},
        ],
    ),
]


@in_one_thread
async def test_bad_frames_are_told_and_the_connection_goes_on(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "BURST", 100)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        for frame in BAD:
            await hers.socket.send_input({"type": "websocket.receive", "text": frame})
            error = await hers.hear("error")
            assert error["error"], frame
            assert "retry" not in error
        await hers.socket.send_to(bytes_data=b"\x00\xff")
        assert "bytes" in (await hers.hear("error"))["error"]
        await hers.say("가" * MAX_TEXT)
        assert (await hers.hear("stored"))["id"] == 1


@in_one_thread
async def test_a_frame_that_is_too_large_ends_the_connection(room, mina):
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        await hers.say("x", rest="x" * consumers.MAX_BYTES)
        assert await hers.end() == consumers.TOO_LARGE


@in_one_thread
async def test_who_is_too_fast_is_told_when_to_send_again_and_loses_nothing(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "BURST", 2)
    monkeypatch.setattr(consumers, "PER_SECOND", 10)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        keys = {await hers.say(f"message {number}"): number for number in range(8)}
        stored, slowed = set(), 0
        while len(stored) < len(keys):
            frame = await hers.frame()
            if frame["type"] == "error":
                slowed += 1
                await asyncio.sleep(frame["retry"])
                await hers.say(f"message {keys[frame['key']]}", frame["key"])
            elif frame["type"] == "stored":
                stored.add(frame["key"])
        assert slowed
        assert await Message.objects.acount() == 8


@in_one_thread
async def test_who_does_not_listen_is_sent_away(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "BURST", 1)
    monkeypatch.setattr(consumers, "PER_SECOND", 0.001)
    async with Browser(room, await session_of(mina)) as hers:
        await hers.hear("welcome")
        for _ in range(consumers.MAX_REFUSED + 2):
            await hers.say("spam")
        assert await hers.end() == consumers.TOO_MANY
        assert await Message.objects.acount() == 1


@in_one_thread
async def test_one_user_has_a_bounded_number_of_windows(room, mina, monkeypatch):
    monkeypatch.setattr(consumers, "MAX_SOCKETS_OF_ONE", 1)
    cookie = await session_of(mina)
    async with Browser(room, cookie) as first:
        await first.hear("welcome")
        async with Browser(room, cookie) as second:
            assert await second.end() == consumers.TOO_MANY
    async with Browser(room, cookie) as third:
        await third.hear("welcome")
