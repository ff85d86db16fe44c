"""`python -m bench.project.seed make` writes the rows, and says which as JSON; `remove` takes them away."""

import json
import sys

import django

django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.db import transaction  # noqa: E402
from posts.models import Author, Post, Tag  # noqa: E402

from bench.project.names import AUTHOR, ROWS, TAGS  # noqa: E402

BODY = "An answer of the size that an interface gives: some two hundred characters. " * 3


@transaction.atomic
def remove():
    for user in User.objects.filter(username=AUTHOR):
        held = [
            session.session_key
            for session in Session.objects.all()
            if session.get_decoded().get(SESSION_KEY) == str(user.pk)
        ]
        Session.objects.filter(session_key__in=held).delete()
        user.delete()
    Tag.objects.filter(name__in=TAGS).delete()


@transaction.atomic
def make():
    user = User.objects.create(username=AUTHOR)
    user.set_unusable_password()
    user.save()
    author = Author.objects.create(user=user, name=AUTHOR)
    tags = [Tag.objects.create(name=name) for name in TAGS]
    posts = Post.objects.bulk_create(
        Post(author=author, title=f"Row {number}", body=BODY, words=39) for number in range(ROWS)
    )
    for post in posts:
        post.tags.set(tags)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return {"row": posts[0].pk, "session": session.session_key}


remove()
if sys.argv[1] == "make":
    print(json.dumps(make()))
