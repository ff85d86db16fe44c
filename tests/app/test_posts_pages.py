"""The posts in the browser.

Sync tests on purpose: async_to_sync runs a view's queries back in the test's own thread, and so inside the
test's transaction.
"""

import re
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from posts import services
from posts.models import Attachment, Author, Change, Post, Tag

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("collected")]

KOREAN = "봄날의 비동기 장고"


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    return tmp_path / "attachments"


@pytest.fixture
def mina():
    return User.objects.create_user("mina", first_name="미나", last_name="김")


@pytest.fixture
def logged_in(client, mina):
    client.force_login(mina)
    return client


def make(user, title="A post", body="Text.", tags=(), **fields):
    author, _ = Author.objects.get_or_create(user=user, defaults={"name": user.username})
    post = Post.objects.create(author=author, title=title, body=body, **fields)
    post.tags.set([Tag.objects.get_or_create(name=name)[0] for name in tags])
    return post


def queries(call):
    with CaptureQueriesContext(connection) as captured:
        assert call().status_code == 200
    return [query["sql"] for query in captured]


def make_with_relations(number):
    post = make(User.objects.create_user(f"author{number}"), tags=["one", f"tag{number}"])
    Attachment.objects.create(post=post, file="x", name="x", size=1)


def test_the_list_takes_as_many_queries_for_twenty_posts_as_for_one(client):
    make_with_relations(0)
    few = queries(lambda: client.get("/posts/"))
    for number in range(1, 20):
        make_with_relations(number)
    many = queries(lambda: client.get("/posts/"))
    assert len(few) == len(many) == 5, many  # posts with authors and users, tags, attachments, count, changes


def test_a_post_takes_as_many_queries_with_ten_relations_as_with_none(client, mina):
    bare, rich = make(mina), make(mina, tags=[f"tag{number}" for number in range(8)])
    for number in range(5):
        Attachment.objects.create(post=rich, file="x", name=f"{number}", size=1)
    few, many = (queries(lambda post=post: client.get(f"/posts/{post.pk}/")) for post in (bare, rich))
    assert len(few) == len(many) == 4, many  # the post, its tags and attachments, one reader more


def test_a_relation_that_was_not_loaded_cannot_be_loaded_in_async_code(mina):
    """Why `whole()` is there. The day this fails, Django loads relations in async code."""
    post = make(mina)

    async def lazy():
        return (await Post.objects.aget(pk=post.pk)).author

    async def eager():
        return (await Post.objects.whole().aget(pk=post.pk)).author

    with pytest.raises(SynchronousOnlyOperation):
        async_to_sync(lazy)()
    assert async_to_sync(eager)() == post.author


def test_pages_follow_each_other_without_gap_or_repetition(client, mina):
    for number in range(45):
        make(mina, f"Post {number:02}", created_at="2026-01-01T00:00Z")  # all at the same moment
    seen, address = [], "/posts/?search=Post"
    while address:
        page = client.get(address).content.decode()
        seen += re.findall(r">(Post \d\d)</a>", page)
        link = re.search(r'rel="next" href="([^"]+)"', page)
        address = link and "/posts/" + link[1].replace("&amp;", "&")
    assert sorted(seen) == [f"Post {number:02}" for number in range(45)]


def test_the_list_is_filtered_by_tag_author_and_text(client, mina):
    make(mina, KOREAN, tags=["비동기"])
    make(User.objects.create_user("otto"), "Other", tags=["다른"])
    for query in ("tag=비동기", "author=mina", "search=봄날"):
        page = client.get(f"/posts/?{query}").content.decode()
        assert KOREAN in page
        assert ">Other</a>" not in page


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=x", "page=1001", "page=" + "9" * 30, "search=%00", "tag=" + "x" * 41, "ordering=body",
     "author=%00", "search=" + "x" * 101],
)  # fmt: skip
def test_a_bad_query_is_a_clear_400(client, query):
    answer = client.get(f"/posts/?{query}")
    assert answer.status_code == 400
    assert query.split("=")[0] in answer.content.decode()


def test_a_post_is_written_edited_and_deleted_in_the_browser(
    logged_in, mina, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        answer = logged_in.post(
            "/posts/new/", {"title": KOREAN, "body": "본문", "tags": "장고, 비동기, 장고"}
        )
    post = Post.objects.get()
    assert answer.url == f"/posts/{post.pk}/"
    assert [tag.name for tag in post.tags.all()] == ["비동기", "장고"]
    assert post.author.name == mina.get_full_name()
    page = logged_in.get(answer.url).content.decode()
    for text in (KOREAN, "본문", "비동기"):
        assert text in page
    form = logged_in.get(f"{answer.url}edit/").content.decode()
    assert 'value="비동기, 장고"' in form
    with django_capture_on_commit_callbacks(execute=True):
        logged_in.post(f"{answer.url}edit/", {"title": "새 제목", "body": "본문", "tags": ""})
    post.refresh_from_db()
    assert (post.title, post.tags.count()) == ("새 제목", 0)
    with django_capture_on_commit_callbacks(execute=True):
        assert logged_in.post(f"{answer.url}delete/").url == "/posts/"
    assert not Post.objects.exists()
    assert [change.verb for change in Change.objects.all()] == ["deleted", "edited", "created"]
    assert KOREAN in logged_in.get("/posts/").content.decode()  # among the last changes


@pytest.mark.parametrize(
    "values",
    [{"title": ""}, {"title": "x" * 201}, {"title": "a\0b"}, {"body": "x" * 20_001}, {"tags": "no spaces"},
     {"tags": ",".join("abcdefghi")}, {"tags": "x" * 41}, {"tags": "a\x7f"}],
)  # fmt: skip
def test_a_form_that_is_wrong_comes_back_with_its_error_and_saves_nothing(logged_in, values):
    answer = logged_in.post("/posts/new/", {"title": "t", "body": "b", "tags": ""} | values)
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert not Post.objects.exists()


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken"),
        ("application/x-www-form-urlencoded", b"title=" + b"x" * 3_000_000),
        ("application/x-www-form-urlencoded", b"&".join(b"%d=" % number for number in range(1001))),
        ("application/x-www-form-urlencoded", b"title=%00&body=%ff%fe"),
        ("application/json", b"{"),
        ("nonsense", b""),
    ],
    ids=["no boundary", "cut off", "too large", "too many fields", "no text", "not a form", "nonsense"],
)
def test_a_body_that_is_no_form_is_400(logged_in, media, body):
    for address in ("/posts/new/", f"/posts/{make(User.objects.get()).pk}/attachments/"):
        assert logged_in.generic("POST", address, body, media).status_code == 400


def test_a_form_from_elsewhere_is_refused(logged_in):
    logged_in.handler.enforce_csrf_checks = True
    assert logged_in.post("/posts/new/", {"title": "t", "body": "b"}).status_code == 403
    assert not Post.objects.exists()


def test_who_is_not_logged_in_is_led_to_the_login_and_back(client):
    User.objects.create_user("mina", password="hush")
    answer = client.get("/posts/new/")
    assert answer.url == "/login/?next=/posts/new/"
    assert client.get(answer.url).status_code == 200
    assert client.post(answer.url, {"username": "mina", "password": "hush"}).url == "/posts/new/"
    assert "Log out" in client.get("/account/").content.decode()
    assert client.get("/account/name").json() == {"name": "mina"}
    client.post("/logout/")
    assert client.get("/account/name").json() == {"name": None}


def test_another_ones_post_is_not_changed(client, mina):
    post = make(mina)
    client.force_login(User.objects.create_user("otto"))
    file = SimpleUploadedFile("a.txt", b"a")
    for address, data in [
        ("edit", {"title": "t", "body": "b"}),
        ("delete", {}),
        ("attachments", {"file": file}),
    ]:
        assert client.post(f"/posts/{post.pk}/{address}/", data).status_code == 403
    assert (Post.objects.get().title, Attachment.objects.count()) == ("A post", 0)


def test_staff_may(client, mina):
    post = make(mina)
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert client.post(f"/posts/{post.pk}/edit/", {"title": "New", "body": "b"}).status_code == 302
    assert Post.objects.get().author.user == mina


@pytest.mark.parametrize("number", ["0", "4711", "9" * 18, "9" * 19, "9" * 5000, "-1", "x"])
def test_an_unknown_post_is_404(logged_in, number):
    assert logged_in.get(f"/posts/{number}/").status_code == 404
    assert logged_in.get(f"/posts/{number}/attachments/{number}/").status_code == 404
    for address in ("edit", "delete", "attachments", f"attachments/{number}/delete"):
        assert logged_in.post(f"/posts/{number}/{address}/").status_code == 404


def test_looking_counts_and_a_head_does_not(client, mina):
    post = make(mina)
    for _ in range(3):
        client.get(f"/posts/{post.pk}/")
    client.head(f"/posts/{post.pk}/")
    post.refresh_from_db()
    assert post.views == 3


def test_nothing_is_inline_and_markup_in_a_post_is_text(logged_in, mina):
    post = make(mina, "<script>alert(1)</script>", "<b onclick=x>")
    for address in ("/posts/", f"/posts/{post.pk}/", f"/posts/{post.pk}/edit/", "/posts/new/", "/login/"):
        page = logged_in.get(address).content.decode()
        assert not re.search(r"<style|<script(?![^>]* src=)| style=|<[^&>]* on\w+=", page), address


# Attachments


def upload(client, post, name="보고서.txt", content=b"content"):
    return client.post(f"/posts/{post.pk}/attachments/", {"file": SimpleUploadedFile(name, content)})


async def download(address, method="GET"):
    """Through the ASGI client, whose answer streams: how many pieces, and all of them."""
    answer = await AsyncClient().generic(method, address)
    pieces = [piece async for piece in answer.streaming_content] if method == "GET" else []
    return answer, pieces


def test_an_attachment_comes_back_whole_in_pieces_and_is_never_shown_in_the_page(logged_in, mina, media):
    post = make(mina)
    content = bytes(range(256)) * 600  # two chunks and a bit
    assert upload(logged_in, post, content=content).status_code == 302
    (attachment,) = Attachment.objects.all()
    assert attachment.name in logged_in.get(f"/posts/{post.pk}/").content.decode()
    assert [path.name for path in media.iterdir()] == [Path(attachment.file.name).name]
    answer, pieces = async_to_sync(download)(attachment.get_absolute_url())
    assert b"".join(pieces) == content
    assert len(pieces) == 3
    assert answer["Content-Length"] == str(len(content))
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment; filename*=utf-8''%EB%B3%B4")
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_head_of_an_attachment_tells_its_size_and_sends_nothing(logged_in, mina):
    upload(logged_in, make(mina))
    answer, _ = async_to_sync(download)(Attachment.objects.get().get_absolute_url(), "HEAD")
    assert answer["Content-Length"] == "7"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a\\b.txt", "x" * 250 + ".txt"])
def test_a_files_name_never_reaches_the_disk(logged_in, mina, media, name):
    part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\nx\r\n--b--\r\n'
    address = f"/posts/{make(mina).pk}/attachments/"
    answer = logged_in.generic("POST", address, part, "multipart/form-data; boundary=b")
    assert answer.status_code in (302, 400)
    for path in media.parent.rglob("*"):
        assert path == media or re.fullmatch(r"[0-9a-f]{32}", path.name)


def test_a_file_too_large_is_refused(logged_in, mina, media, monkeypatch):
    monkeypatch.setattr("posts.forms.MAX_ATTACHMENT", 10)
    assert upload(logged_in, make(mina), content=b"x" * 11).status_code == 400
    assert not media.exists()


def test_a_form_without_a_file_is_refused(logged_in, mina):
    assert logged_in.post(f"/posts/{make(mina).pk}/attachments/").status_code == 400


def test_the_sixth_file_is_refused_and_does_not_stay_on_the_disk(logged_in, mina, media):
    post = make(mina)
    for _ in range(services.MAX_ATTACHMENTS):
        assert upload(logged_in, post).status_code == 302
    assert upload(logged_in, post).status_code == 400
    assert post.attachments.count() == len(list(media.iterdir())) == services.MAX_ATTACHMENTS


def test_uploads_at_the_same_moment_are_counted_as_they_are_saved_and_not_as_they_were_read(mina, media):
    post = async_to_sync(services.get)(make(mina).pk)
    for _ in range(services.MAX_ATTACHMENTS):
        async_to_sync(services.attach)(mina, post, SimpleUploadedFile("x", b"x"))
    with pytest.raises(services.TooManyError):
        async_to_sync(services.attach)(mina, post, SimpleUploadedFile("x", b"x"))
    assert len(list(media.iterdir())) == services.MAX_ATTACHMENTS


def test_a_removed_attachment_leaves_the_disk_once_committed(
    logged_in, mina, media, django_capture_on_commit_callbacks
):
    post = make(mina)
    upload(logged_in, post)
    upload(logged_in, post)
    first = post.attachments.first()
    with django_capture_on_commit_callbacks() as callbacks:
        assert logged_in.post(f"{first.get_absolute_url()}delete/").status_code == 302
    assert len(list(media.iterdir())) == 2
    for callback in callbacks:
        callback()
    assert len(list(media.iterdir())) == 1
    with django_capture_on_commit_callbacks(execute=True):
        logged_in.post(f"/posts/{post.pk}/delete/")
    assert list(media.iterdir()) == []


def test_a_file_that_went_missing_is_404(client, mina):
    attachment = Attachment.objects.create(post=make(mina), file="attachments/gone", name="x", size=1)
    assert client.get(attachment.get_absolute_url()).status_code == 404


# Transactions and signals


def test_a_post_whose_tags_cannot_be_saved_is_not_saved_and_announces_nothing(
    mina, monkeypatch, django_capture_on_commit_callbacks
):
    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(Tag.objects, "bulk_create", fail)
    with django_capture_on_commit_callbacks(execute=True) as callbacks, pytest.raises(RuntimeError):
        async_to_sync(services.create)(mina, title="t", body="b", tags=["x"])
    assert not Post.objects.exists()
    assert callbacks == []


def test_a_receiver_that_fails_does_not_undo_the_post(mina, caplog, django_capture_on_commit_callbacks):
    from posts.receivers import post_changed

    async def broken(sender, **_):
        raise RuntimeError("broken receiver")

    post_changed.connect(broken)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            async_to_sync(services.create)(mina, title="t", body="b")
    finally:
        post_changed.disconnect(broken)
    assert Post.objects.count() == Change.objects.count() == 1
    assert "broken receiver" in caplog.text


def test_the_lines_of_changes_do_not_pile_up(mina, monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setattr("posts.receivers.KEPT_CHANGES", 2)
    with django_capture_on_commit_callbacks(execute=True):
        for number in range(4):
            async_to_sync(services.create)(mina, title=f"t{number}", body="b")
    assert [change.title for change in Change.objects.all()] == ["t3", "t2"]


def test_a_change_of_name_reaches_the_author(mina):
    async_to_sync(services.create)(mina, title="t", body="b")
    mina.first_name = "민아"
    async_to_sync(services.create)(mina, title="t", body="b")
    assert Author.objects.get().name == "민아 김"


# The admin


@pytest.mark.parametrize("model", ["post", "author", "tag", "change"])
def test_the_admin_lists_and_searches(admin_client, mina, model):
    make(mina, KOREAN, tags=["장고"])
    Change.objects.create(verb="created", post_number=1, title=KOREAN)
    assert admin_client.get(f"/admin/posts/{model}/").status_code == 200


def test_the_admin_edits_and_deletes_with_the_files(
    admin_client, logged_in, mina, media, django_capture_on_commit_callbacks
):
    post = make(mina)
    upload(logged_in, post)
    assert admin_client.get(f"/admin/posts/post/{post.pk}/change/").status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(f"/admin/posts/post/{post.pk}/delete/", {"post": "yes"})
    assert not Post.objects.exists()
    assert list(media.iterdir()) == []


def test_the_admin_is_for_staff(logged_in):
    assert logged_in.get("/admin/").url.startswith("/admin/login/")


def test_no_migration_is_missing():
    from django.core.management import call_command

    call_command("makemigrations", check=True, dry_run=True)
