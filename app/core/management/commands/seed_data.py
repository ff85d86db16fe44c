"""A few hundred users, posts and messages to look at, Korean ones among them. Run again, it adds only what is
missing.

With --accounts, the demo accounts can log in, and their passwords are printed. The passwords come from
SECRET_KEY, so that they are kept nowhere, are the same each time, and differ from site to site.
"""

import base64
import random

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils.crypto import salted_hmac

import chat.seed
import posts.seed

USERS = 200
WRITERS = ("mina", "jonas")
STAFF = "sora"  # may do everything in the admin

KOREAN_FAMILY = ["김", "이", "박", "최", "정", "강", "조", "윤"]
KOREAN_GIVEN = ["미나", "서준", "하은", "도윤", "지우", "예준", "수아", "민재", "유진", "태현"]
FAMILY = ["Berg", "Costa", "Dubois", "Fischer", "García", "Ivanova", "Jensen", "Novák", "Okafor", "Silva"]
GIVEN = ["Jonas", "Amara", "Clara", "Emil", "Ines", "Lena", "Marco", "Nadia", "Olu", "Sofia"]


class Command(BaseCommand):
    help = __doc__.split("\n\n", 1)[0]

    def add_arguments(self, parser):
        parser.add_argument("--accounts", action="store_true", help="demo accounts can log in, as printed")

    def handle(self, *, accounts, **options):
        with transaction.atomic():
            users, added, messages = fill(random.Random("pergola"))  # noqa: S311 - the same data each time
            rows = [account(username) for username in (*WRITERS, STAFF)] if accounts else []
        self.stdout.write(f"{users} users, {added} posts, {messages} messages added")
        if rows:
            self.stdout.write("\n" + table(rows))


def fill(chance):
    """How many users, posts and messages were added."""
    usernames = [*WRITERS, *(f"reader{number:03}" for number in range(USERS - len(WRITERS)))]
    there = set(User.objects.filter(username__in=usernames).values_list("username", flat=True))
    new = [user for user in map(person(chance), usernames) if user.username not in there]
    User.objects.bulk_create(new)
    return len(new), posts.seed.add(chance, usernames), chat.seed.add(chance, usernames)


def person(chance):
    def make(username):
        korean = username != "jonas" and (username == "mina" or chance.random() < 0.4)
        given, family = (KOREAN_GIVEN, KOREAN_FAMILY) if korean else (GIVEN, FAMILY)
        first = given[0] if username in WRITERS else chance.choice(given)
        user = User(username=username, first_name=first, last_name=chance.choice(family))
        user.set_unusable_password()
        return user

    return make


def password_of(username):
    """80 bits, in letters and digits that a person can type."""
    digest = salted_hmac("core.seed_data", username, algorithm="sha256").digest()
    return base64.b32encode(digest[:10]).decode().lower()


def account(username):
    """(name, password, what it may do). A password that somebody set stays; so does one that is right: a new
    hash would end its sessions."""
    password = password_of(username)
    user, made = User.objects.get_or_create(
        username=username,
        defaults={"first_name": "소라", "last_name": "한", "is_staff": True, "is_superuser": True},
    )
    if made or not user.has_usable_password():
        user.set_password(password)
        user.save(update_fields=["password"])
    elif not user.check_password(password):
        return username, "(another: kept)", may(user)
    return username, password, may(user)


def may(user):
    return "the admin too" if user.is_staff else "writes and chats"


def table(rows):
    rows = [("account", "password", "may"), *rows]
    return "\n".join(f"{name:9}{password:18}{may}" for name, password, may in rows)
