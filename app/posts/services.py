"""What can be done with posts. The pages and both APIs call this and nothing below it.

Reading is the async ORM itself. Writing several rows at once is a sync function under `transaction.atomic`,
called through `sync_to_async`: Django has no async transactions, and an `await` between two statements of one
would anyway hold its locks for as long as that takes.
"""

from dataclasses import dataclass
from functools import partial

from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.models import F

from posts.models import Attachment, Author, Change, Post, Tag, attachment_path
from posts.receivers import post_changed

ORDERINGS = {
    "-created_at": ("-created_at", "-pk"),
    "created_at": ("created_at", "pk"),
    "title": ("title", "pk"),
    "-views": ("-views", "-pk"),
}
NEWEST = "-created_at"
MAX_PAGE_SIZE = 100
MAX_PAGE = 1_000  # an offset is counted through row by row
MAX_SEARCH = 100
MAX_ATTACHMENTS = 5
MAX_ATTACHMENT = 5 * 1024 * 1024
CHUNK = 64 * 1024


class TooManyError(Exception):
    pass


@dataclass(frozen=True)
class Page:
    posts: list
    count: int
    number: int
    size: int

    @property
    def last(self):
        return max(1, min(MAX_PAGE, -(-self.count // self.size)))

    @property
    def previous(self):
        return self.number - 1 if 1 < self.number <= self.last else None

    @property
    def next(self):
        return self.number + 1 if self.number < self.last else None


async def page(number=1, size=20, *, author="", tag="", search="", ordering=NEWEST):
    posts = Post.objects.order_by(*ORDERINGS[ordering])
    if author:
        posts = posts.by(author)
    if tag:
        posts = posts.tagged(tag)
    if search:
        posts = posts.saying(search)
    start = (number - 1) * size
    return Page(
        [post async for post in posts.whole()[start : start + size]], await posts.acount(), number, size
    )


async def get(number):
    """Raises Post.DoesNotExist."""
    return await Post.objects.whole().aget(pk=number)


async def seen(post):
    """One statement: two visitors at the same moment count as two, unlike with `post.views += 1`."""
    await Post.objects.filter(pk=post.pk).aupdate(views=F("views") + 1)


async def latest_changes(count=5):
    return [change async for change in Change.objects.all()[:count]]


def may_change(user, post):
    return user.is_staff or post.author.user_id == user.pk


def require_may_change(user, post):
    if not may_change(user, post):
        raise PermissionDenied("Only its author may change a post.")


async def create(user, *, title, body, tags=()):
    name = user.get_full_name() or user.get_username()
    author, _ = await Author.objects.aget_or_create(user=user, defaults={"name": name})
    if author.name != name:
        author.name = name
        await author.asave(update_fields=["name"])
    return await get(await save(Post(author=author, title=title, body=body), tags, Change.Verb.CREATED))


async def edit(user, post, *, tags=None, **fields):
    """Changes what is given. `tags=None` leaves them. Like what follows, raises Post.DoesNotExist."""
    require_may_change(user, post)
    for name, value in fields.items():
        setattr(post, name, value)
    return await get(await save(post, tags, Change.Verb.EDITED, update_fields=[*fields, "updated_at"]))


async def delete(user, post):
    require_may_change(user, post)
    await remove(post)


@sync_to_async
@transaction.atomic
def save(post, tags, verb, **options):
    """The post and its tags, both or neither."""
    if post.pk:
        still_there(post)
    post.save(**options)
    if tags is not None:
        # in one order, so that two who add the same new tags wait for each other in a row and not in a ring
        Tag.objects.bulk_create([Tag(name=name) for name in sorted(tags)], ignore_conflicts=True)
        post.tags.set(Tag.objects.filter(name__in=tags))
    announce(verb, post)
    return post.pk


@sync_to_async
@transaction.atomic
def remove(post):
    still_there(post)
    announce(Change.Verb.DELETED, post)
    post.delete()


def still_there(post):
    """Locks the row until the end of the transaction; raises Post.DoesNotExist when somebody deleted it."""
    Post.objects.select_for_update().get(pk=post.pk)


def announce(verb, post):
    """Once the transaction is committed, and not at all if it is rolled back.

    The hook is called in the transaction's thread; `async_to_sync` takes it back to the request's event loop,
    where the receivers run. `robust` twice: the post is saved, whatever becomes of a receiver.
    """
    send = partial(
        async_to_sync(post_changed.asend_robust), Post, verb=verb, number=post.pk, title=post.title
    )
    transaction.on_commit(send, robust=True)


async def attach(user, post, upload):
    """Keeps a file that came with a form.

    Uvicorn hands the body on as it arrives, and Django gathers it in a temporary file before the view is
    called; from there it goes to the storage chunk by chunk, in another thread than the request's queries.
    """
    require_may_change(user, post)
    name = await sync_to_async(default_storage.save, thread_sensitive=False)(
        attachment_path(None, upload.name), upload
    )
    try:
        await add_attachment(post, name, upload)
    except BaseException:
        await sync_to_async(default_storage.delete, thread_sensitive=False)(name)
        raise


@sync_to_async
@transaction.atomic
def add_attachment(post, name, upload):
    still_there(post)  # and two uploads at the same moment count one after the other
    # (!) not post.attachments.count(): it counts those that were prefetched before the lock
    if Attachment.objects.filter(post=post).count() >= MAX_ATTACHMENTS:
        raise TooManyError(f"A post takes {MAX_ATTACHMENTS} attachments at most.")
    Attachment.objects.create(post=post, file=name, name=upload.name[-200:], size=upload.size)


async def detach(user, post, attachment):
    require_may_change(user, post)
    await attachment.adelete()


async def chunks(file):
    """The file piece by piece, each read in a thread.

    Django's FileResponse is no help under ASGI: it is a sync iterator, which Django reads to its end into
    memory before the first byte goes out.
    """
    try:
        while chunk := await sync_to_async(file.read, thread_sensitive=False)(CHUNK):
            yield chunk
    finally:
        file.close()


@sync_to_async
def give_connection_back():
    """A streaming answer would hold its request's database connection until the last byte is sent."""
    if not connection.in_atomic_block:
        connection.close()
