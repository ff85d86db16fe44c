"""A chat room's numbers come in the order of the commits. With one writer, as SQLite has, nobody sees it."""

import json

import pytest
from infra.tools import shell

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["app-web@*"]

# Two sessions, a thread each. The first waits with its commit until the second stands behind it.
TWO_SESSIONS = """
import json, threading, time, uuid
from chat.models import Message, Room
from chat.services import post
from django.contrib.auth.models import User
from django.db import connection, transaction

BEHIND_US = "SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
name = f"probe-{uuid.uuid4().hex[:8]}"
user = User.objects.create_user(name)
room = Room.objects.create(name=name, slug=name)
second = {}


def say(text):
    return post.func(room.pk, user.pk, uuid.uuid4(), text)[0]


def speak():
    try:
        second["number"] = say("second")
    finally:
        connection.close()


def somebody_waits():
    with connection.cursor() as cursor:
        cursor.execute(BEHIND_US)
        return cursor.fetchone()[0] > 0


thread = threading.Thread(target=speak)
try:
    with transaction.atomic():
        first = say("first")
        thread.start()
        end = time.monotonic() + 60
        while not (waits := somebody_waits()) and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.05)
        before = dict(second)
    thread.join(60)
    stored = list(Message.objects.filter(room=room).order_by("number").values_list("number", "text"))
    print(json.dumps({"waits": waits, "before": before, "first": first, "after": second, "stored": stored}))
finally:
    room.delete()
    user.delete()
"""


@pytest.mark.disruptive
def test_who_comes_second_waits_for_the_commit_and_gets_the_next_number(host):
    assert json.loads(shell(host, TWO_SESSIONS).splitlines()[-1]) == {
        "waits": True,
        "before": {},
        "first": 1,
        "after": {"number": 2},
        "stored": [[1, "first"], [2, "second"]],
    }
