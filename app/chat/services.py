"""What chat keeps in the database. The consumer and the pages call this and nothing below it.

(!) All database calls of the consumers of one process share one thread (asgiref's, as no request ends that
could have one of its own): ten of 0.3 s took 3.1 s. So each call here is a few short queries in one hop, and
there are several Daphne processes. A call that must be slow wants `async with ThreadSensitiveContext():`
around it, which gives it a thread, and a database connection, for that long.
"""

import unicodedata
from importlib import import_module

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils.text import slugify

from chat.models import MAX_NAME, MAX_SLUG, Message, Room

BATCH = 100
MAX_REPLAY = 1_000  # what a client that was away gets of what it missed
HISTORY = 50  # what a new one gets
MAX_ROOMS_OF_ONE = 50
LISTED = 100


class RefusedError(Exception):
    """With a sentence for the visitor."""


def name_of(user):
    return user.get_full_name() or user.get_username()


def slug_of(name):
    """One spelling for the two ways in which Unicode writes a Hangul syllable or an umlaut."""
    return slugify(unicodedata.normalize("NFC", name), allow_unicode=True)


async def rooms():
    return [room async for room in Room.objects.all()[:LISTED]]


async def get(slug):
    """Raises Room.DoesNotExist."""
    return await Room.objects.aget(slug=unicodedata.normalize("NFC", slug))


async def make_room(user, name):
    """The room of that name, made if there is none."""
    slug = slug_of(name)
    if not slug or len(name) > MAX_NAME:
        raise RefusedError(f"A name has a letter or a digit, and {MAX_NAME} characters at most.")
    if len(slug) > MAX_SLUG:  # of one ligature Unicode makes up to 18 characters
        raise RefusedError("This name is too long when its ligatures are written out.")
    room = await Room.objects.filter(slug=slug).afirst()
    if room is None:
        if await Room.objects.filter(made_by=user).acount() >= MAX_ROOMS_OF_ONE:
            raise RefusedError(f"One person makes {MAX_ROOMS_OF_ONE} rooms at most.")
        # two at the same moment: the later one finds the earlier one's
        room, _ = await Room.objects.aget_or_create(slug=slug, defaults={"name": name, "made_by": user})
    return room


@database_sync_to_async
@transaction.atomic
def post(room_id, user_id, key, text):
    """(number, whether it is new). Raises Room.DoesNotExist.

    Why a number of the room's own and not the primary key: keys are given out before they are committed, so
    that 8 may be seen before 7; who then asks for what came after 8 never gets 7. Here the first statement
    takes the room's row and keeps it until the commit: the next number is given only when this one is there
    to be read, so that the order of the numbers is the order of the commits. It costs that messages of one
    room are stored one after another. (An UPDATE and not a SELECT FOR UPDATE: SQLite has only the former.)
    """
    Room.objects.filter(pk=room_id).update(last=F("last") + 1)
    number = Room.objects.values_list("last", flat=True).get(pk=room_id)
    known = Message.objects.filter(room=room_id, author=user_id, key=key)
    if (stored := known.values_list("number", flat=True).first()) is not None:
        transaction.set_rollback(True)  # the number goes back
        return stored, False
    Message.objects.create(room_id=room_id, author_id=user_id, number=number, key=key, text=text)
    return number, True


@database_sync_to_async
def after(room_id, number):
    """The messages behind that number, as they are sent, up to a batch."""
    found = Message.objects.filter(room=room_id, number__gt=number).order_by("number")
    return [
        {
            "id": message.number,
            "key": str(message.key),
            "author": message.author.get_username(),
            "name": name_of(message.author),
            "text": message.text,
            "at": message.at.isoformat(),
        }
        for message in found.select_related("author")[:BATCH]
    ]


@database_sync_to_async
def look(room_id, session_key, user_id):
    """(the room's last number, whether the session is still this user's): in one hop.

    A socket outlives the answer that let it in: meanwhile its user logged out elsewhere, was locked out or
    got a new password, or the room is gone (None).
    """
    last = Room.objects.filter(pk=room_id).values_list("last", flat=True).first()
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    return last, user.pk == user_id and user.is_active
