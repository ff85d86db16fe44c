"""The posts as both APIs take them in and give them out. The frameworks differ in how they say it, below."""

from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate
from django.contrib.auth.models import User

from posts.forms import normal_tags
from posts.models import MAX_BODY, MAX_TITLE
from posts.services import MAX_PAGE, MAX_PAGE_SIZE, MAX_SEARCH

PAGE_SIZE = 20
MAX_USERNAME = 150
MAX_PASSWORD = 128  # hashing one takes time in proportion


def text(value, limit):
    """What is kept of a text; raises ValueError with a sentence."""
    if not isinstance(value, str):
        raise ValueError("This is not a text.")
    if len(value) > limit:
        raise ValueError(f"At most {limit} characters.")
    if "\0" in value:
        raise ValueError("The character NUL is not text.")
    if not value.strip():
        raise ValueError("This is empty.")
    return value.strip()


def title(value):
    return text(value, MAX_TITLE)


def body(value):
    return text(value, MAX_BODY)


def tags(value):
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("This is not a list of texts.")
    return normal_tags(value)


def username(value):
    return text(value, MAX_USERNAME)


def password(value):
    text(value, MAX_PASSWORD)
    return value  # its spaces count


def search(value):
    return text(value, MAX_SEARCH)


def whole(value, limit):
    """A query parameter's number."""
    value = str(value)
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= limit):
        raise ValueError(f"This is not a whole number from 1 to {limit}.")
    return int(value)


def page(value):
    return whole(value, MAX_PAGE)


def page_size(value):
    return whole(value, MAX_PAGE_SIZE)


def choice(value, choices):
    if value not in choices:
        raise ValueError(f"This is none of {', '.join(choices)}.")
    return value


def represent(post):
    return {
        "id": post.pk,
        "title": post.title,
        "body": post.body,
        "author": {"username": post.author.user.username, "name": post.author.name},
        "tags": [tag.name for tag in post.tags.all()],
        "attachments": [
            {"name": attachment.name, "size": attachment.size, "url": attachment.get_absolute_url()}
            for attachment in post.attachments.all()
        ],
        "views": post.views,
        "created_at": post.created_at,
        "updated_at": post.updated_at,
    }


def represent_page(request, page):
    def address(number):
        return number and f"{request.path}?{urlencode({**request.GET.dict(), 'page': number})}"

    return {
        "count": page.count,
        "next": address(page.next),
        "previous": address(page.previous),
        "results": [represent(post) for post in page.posts],
    }


# Not aauthenticate(): it hashes the password in the event loop, and everybody waits those tenths of a second.
who_knows_the_password = sync_to_async(authenticate)

WAYS = ("aget", "sync_to_async")


async def user_info(number, by):
    """The same row in the two ways of asking for it; both take a thread, as async queries do so far."""
    user = await (
        User.objects.aget(pk=number) if by == "aget" else sync_to_async(User.objects.get)(pk=number)
    )
    return {"username": user.username, "name": user.get_full_name(), "by": by}


async def hello():
    return {"message": "Hello, async world"}
