"""One contract, and both APIs are held to it."""

import asyncio
import contextlib
import json
import re
from datetime import datetime, timedelta

import pytest
from api import guard
from api.models import Token
from asgiref.sync import async_to_sync
from channels.testing import HttpCommunicator
from django.contrib.auth import aauthenticate
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from posts import services
from posts.models import MAX_BODY, MAX_TAGS, MAX_TITLE, Author, Post, Tag
from redis import Redis

KOREAN = "봄날의 비동기 장고"
POST = {"title": KOREAN, "body": "본문 \U0001f338", "tags": ["장고", "비동기"]}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def counted(settings):
    """Throttling counts in this process's memory, from nothing in each test."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    from django.core.cache import cache

    cache.clear()


class API:
    def __init__(self, client, name):
        self.client, self.name, self.key = client, name, None

    def __call__(self, method, path, data=None, *, raw=None, media="application/json", **headers):
        if self.key:
            headers = {"Authorization": f"Bearer {self.key}"} | headers
        body = raw if raw is not None else "" if data is None else json.dumps(data)
        return self.client.generic(method, f"/api/{self.name}/{path}", body, media, headers=headers)

    def get(self, path, **kwargs):
        return self("GET", path, **kwargs)

    def post(self, path, data=None, **kwargs):
        return self("POST", path, data, **kwargs)

    def log_in(self, user):
        _, self.key = async_to_sync(Token.issue)(user)
        return self


@pytest.fixture(params=["drf", "ninja"])
def anybody(request, client):
    return API(client, request.param)


@pytest.fixture
def mina():
    return User.objects.create_user("mina", password="hush hush", first_name="미나", last_name="김")


@pytest.fixture
def api(anybody, mina):
    return anybody.log_in(mina)


def make(user, **fields):
    author, _ = Author.objects.get_or_create(user=user, defaults={"name": user.username})
    return Post.objects.create(author=author, **({"title": "t", "body": "b"} | fields))


def assert_problem(answer, status, *places):
    """RFC 9457, and nothing of the inside in it; `places` is where the errors are."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert {error.get("pointer") or error.get("parameter") for error in body.get("errors", ())} == set(places)
    assert all(error["detail"] for error in body.get("errors", ()))
    assert "Traceback" not in answer.content.decode()
    return body


def test_hello(anybody):
    assert anybody.get("async-hello").json() == {"message": "Hello, async world"}


# The resource


def test_a_post_is_made_read_changed_and_deleted(api):
    answer = api.post("posts", POST)
    assert answer.status_code == 201
    made = answer.json()
    assert {key: made[key] for key in POST} == POST | {"tags": ["비동기", "장고"]}
    assert made["author"] == {"username": "mina", "name": Author.objects.get().name}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", made["created_at"])
    address = f"posts/{made['id']}"
    assert api.get(address).json() == made

    changed = api("PATCH", address, {"title": "새 제목"}).json()
    assert changed | {"updated_at": 0} == made | {"title": "새 제목", "updated_at": 0}
    assert datetime.fromisoformat(changed["updated_at"]) >= datetime.fromisoformat(made["updated_at"])
    assert api("PATCH", address, {"tags": []}).json()["tags"] == []
    assert api("PATCH", address, {}).json()["title"] == "새 제목"

    answer = api("DELETE", address)
    assert (answer.status_code, answer.content) == (204, b"")
    for method, data in [("GET", None), ("PATCH", {}), ("DELETE", None)]:
        assert_problem(api(method, address, data), 404)


def test_both_apis_say_the_same_of_a_post_and_of_a_list(client, mina):
    post = make(mina, title=KOREAN)
    post.tags.set([Tag.objects.create(name="장고")])
    post.attachments.create(file="x", name="보고서.txt", size=7)
    for path in (f"posts/{post.pk}", "posts?tag=장고"):
        one, other = (API(client, name).get(path).json() for name in ("drf", "ninja"))
        assert one == other
        assert "보고서.txt" in json.dumps(one, ensure_ascii=False)


def test_reading_needs_no_token_and_minds_no_wrong_one(anybody, mina):
    post = make(mina)
    for path in ("posts", f"posts/{post.pk}", "async-hello"):
        assert anybody.get(path).status_code == 200
        assert anybody.get(path, Authorization="Bearer wrong").status_code == 200


def test_a_head_is_a_get_without_its_body(anybody):
    answer = anybody("HEAD", "posts")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_list_takes_as_many_queries_for_twenty_posts_as_for_one(anybody, mina):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            assert anybody.get("posts").status_code == 200
        return len(captured)

    def make_with_relations(number):
        post = make(User.objects.create_user(f"user{number}"))
        post.tags.set([Tag.objects.create(name=f"tag{number}")])
        post.attachments.create(file="x", name="x", size=1)

    make_with_relations(0)
    few = queries()
    for number in range(1, 20):
        make_with_relations(number)
    assert queries() == few == 4


# Pages, filters, order


def test_pages_follow_each_other_without_gap_or_repetition(anybody, mina):
    for number in range(25):
        make(mina, title=f"p{number}", created_at="2026-01-01T00:00Z")
    seen, path = [], "posts?page_size=10&author=mina"
    while path:
        page = anybody.get(path).json()
        assert page["count"] == 25
        seen += [post["title"] for post in page["results"]]
        path = page["next"] and page["next"].removeprefix(f"/api/{anybody.name}/")
    assert sorted(seen) == sorted(f"p{number}" for number in range(25))
    assert "page=2" in page["previous"]
    assert "author=mina" in page["previous"]


def test_a_page_after_the_last_is_empty(anybody, mina):
    make(mina)
    page = anybody.get("posts?page=7").json()
    assert (page["results"], page["next"], page["previous"]) == ([], None, None)


def test_the_list_is_filtered_and_ordered(anybody, mina):
    spring = make(mina, title=KOREAN, views=3)
    spring.tags.set([Tag.objects.create(name="비동기")])
    other = make(User.objects.create_user("otto"), title="Other", body="100% of it", views=7)

    def found(query):
        return [post["id"] for post in anybody.get(f"posts?{query}").json()["results"]]

    for query in (
        "tag=비동기",
        "author=mina",
        "search=봄날",
        "ordering=created_at&page_size=1",
    ):
        assert found(query) == [spring.pk], query
    assert found("search=100%25") == [other.pk]
    assert found("search=%25%25") == []
    assert found("ordering=-views") == [other.pk, spring.pk]
    assert found("ordering=title") == [other.pk, spring.pk]
    assert found("author=nobody") == []


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page=",
        "page=1.5",
        "page=1e3",
        "page=1_0",
        "page=%D9%A1",
        "page=1001",
        "page=" + "9" * 5000,
        "page_size=0",
        "page_size=101",
        "search=",
        "search=%00",
        "search=" + "x" * 101,
        "tag=%00",
        "tag=two%20words",
        "tag=",
        "tag=" + "x" * 41,
        "author=" + "x" * 151,
        "ordering=body",
        "ordering=",
    ],
    ids=lambda query: query[:20],
)
def test_a_bad_query_names_the_parameter(anybody, query):
    assert_problem(anybody.get(f"posts?{query}"), 422, query.split("=")[0])


# Tokens


def test_a_token_is_issued_used_and_revoked(anybody, mina):
    answer = anybody.post("tokens", {"username": "mina", "password": "hush hush"})
    assert answer.status_code == 201
    anybody.key = answer.json()["token"]
    assert datetime.fromisoformat(answer.json()["expires_at"]) > timezone.now() + timedelta(days=29)
    assert not Token.objects.filter(digest=anybody.key).exists()
    assert anybody.get("user-info").status_code == 200
    assert anybody("DELETE", "tokens").status_code == 204
    assert_problem(anybody.get("user-info"), 401)


def test_a_password_is_not_hashed_in_the_event_loop(anybody, mina, monkeypatch):
    """As Django's own aauthenticate does it, and meanwhile nobody else is served."""
    original, seen = MD5PasswordHasher.verify, []

    def verify(*args):
        with contextlib.suppress(RuntimeError):
            seen.append(asyncio.get_running_loop())
        seen.append("called")
        return original(*args)

    monkeypatch.setattr(MD5PasswordHasher, "verify", verify)
    assert anybody.post("tokens", {"username": "mina", "password": "hush hush"}).status_code == 201
    assert seen == ["called"]
    async_to_sync(aauthenticate)(username="mina", password="hush hush")
    assert len(seen) == 3, "aauthenticate hashes elsewhere by now: use it"


@pytest.mark.parametrize("by", ["aget", "sync_to_async"])
def test_user_info_in_both_ways(api, by):
    answer = api.get(f"user-info?by={by}").json()
    assert answer == {"username": "mina", "name": "미나 김", "by": by}


def test_user_info_in_a_third_way_is_refused(api):
    assert_problem(api.get("user-info?by=guessing"), 422, "by")


@pytest.mark.parametrize(
    "credentials",
    [("mina", "wrong"), ("nobody", "hush hush"), ("gone", "hush hush"), ("mina", "hush hush ")],
)
def test_wrong_credentials_are_401(anybody, mina, credentials):
    User.objects.create_user("gone", password="hush hush", is_active=False)
    answer = anybody.post("tokens", dict(zip(("username", "password"), credentials, strict=True)))
    assert_problem(answer, 401)
    assert not Token.objects.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "user-info"),
        ("POST", "posts"),
        ("PATCH", "posts/1"),
        ("DELETE", "posts/1"),
        ("DELETE", "tokens"),
    ],
)
def test_without_a_good_token_it_is_401_and_says_how(anybody, method, path):
    for header in ("", "Bearer", "Bearer ", "Bearer x", "Basic bWluYTpo", "bearer ü", "Bearer " + "x" * 4000):
        answer = anybody(method, path, POST, Authorization=header)
        assert_problem(answer, 401)
        assert answer["WWW-Authenticate"] == "Bearer"
    assert not Post.objects.exists()


def test_a_token_that_expired_or_whose_user_is_locked_out_is_refused(api, mina):
    Token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert_problem(api.get("user-info"), 401)
    Token.objects.update(expires_at=timezone.now() + timedelta(days=1))
    User.objects.update(is_active=False)
    assert_problem(api.get("user-info"), 401)


def test_another_ones_post_is_403(api):
    post = make(User.objects.create_user("otto"))
    assert_problem(api("PATCH", f"posts/{post.pk}", {"title": "x"}), 403)
    assert_problem(api("DELETE", f"posts/{post.pk}"), 403)
    assert Post.objects.get().title == "t"


# Bad input


def test_every_wrong_field_is_named(api):
    wrong = {"title": 5, "body": None, "tags": "x", "color": "red"}
    for method, path in [("POST", "posts"), ("PATCH", f"posts/{make(User.objects.get()).pk}")]:
        answer = api(method, path, wrong)
        assert "#/title" in answer.content.decode()
        body = answer.json()
        assert answer.status_code == 422
        assert {"#/title", "#/body", "#/tags"} <= {error["pointer"] for error in body["errors"]}
    assert_problem(api.post("posts", POST | {"color": "red"}), 422, "#/color")


@pytest.mark.parametrize("missing", ["title", "body"])
def test_a_missing_field_is_named(api, missing):
    data = {key: value for key, value in POST.items() if key != missing}
    assert_problem(api.post("posts", data), 422, f"#/{missing}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("title", value) for value in ("", " \n", "a\0b", 1, 1.5, True, None, [], {})],
        *[("body", value) for value in ("", "\0", 1, None, ["x"])],
        ("title", "x" * (MAX_TITLE + 1)),
        ("body", "x" * (MAX_BODY + 1)),
        ("tags", None),
        ("tags", {}),
        ("tags", [1]),
        ("tags", [None]),
        ("tags", [""]),
        ("tags", ["two words"]),
        ("tags", ["a,b"]),
        ("tags", ["a\0"]),
        ("tags", ["x" * 41]),
        ("tags", ["same"] * (MAX_TAGS + 1)),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_a_wrong_value_is_422_at_its_field_and_saves_nothing(api, field, value):
    assert_problem(api.post("posts", POST | {field: value}), 422, f"#/{field}")
    assert not Post.objects.exists()


def test_the_longest_post_is_taken(api):
    data = {"title": "\U0001f338" * MAX_TITLE, "body": "\U0001f338" * MAX_BODY, "tags": []}
    assert api.post("posts", data).status_code == 201


@pytest.mark.parametrize(
    "raw",
    [b" ", b"{", b"{]", b"nul", b"NaN", b'{"title": NaN}', b"\xff\xfe", '{"title": "ü"}'.encode("latin-1"),
     b'{"a": 1} x', b"[" * 100_000, b"1" * 5000, b'{"title": "\\ud800"}', b'{"\\udfff": 1}'],
    ids=lambda raw: repr(raw)[:20],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "posts"), ("POST", "tokens"), ("PATCH", "posts/1")])
def test_what_is_not_json_is_400(api, method, path, raw):
    assert_problem(api(method, path, raw=raw), 400)


@pytest.mark.parametrize("document", [[], [{}], "text", 1, True, None])
@pytest.mark.parametrize("path", ["posts", "tokens"])
def test_json_that_is_no_object_is_422(api, path, document):
    answer = api.post(path, raw=json.dumps(document))
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert all(error["pointer"] == "#" for error in answer.json()["errors"]), answer.content


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"]
)
def test_another_media_type_is_415(api, media):
    assert_problem(api.post("posts", POST, media=media), 415)


@pytest.mark.parametrize("method", ["POST", "PATCH", "GET", "DELETE"])
def test_a_body_too_large_is_413(api, method):
    path = "posts" if method in ("GET", "POST") else "posts/1"
    assert_problem(api(method, path, raw=b'"' + b"x" * 3_000_000 + b'"'), 413)


@pytest.mark.parametrize("name", ["drf", "ninja"])
@pytest.mark.parametrize(("size", "status"), [(300_000, 413), (1_000, 422)])
async def test_a_body_that_comes_without_its_length_is_bounded_and_read_all_the_same(name, size, status):
    body = json.dumps({"username": "x" * 10, "password": "x" * size}).encode()
    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    answer = await HttpCommunicator(
        get_asgi_application(), "POST", f"/api/{name}/tokens", body=body, headers=headers
    ).get_response()
    problem = json.loads(answer["body"])
    assert answer["status"] == status, problem
    assert [error["pointer"] for error in problem.get("errors", ())] == ["#/password"] * (status == 422)


@pytest.mark.parametrize(
    "number", ["0", "4711", "9" * 19, "9" * 40, "9" * 4000, "-1", "x", "1.5", "1/", "%00", "가"]
)
def test_an_unknown_post_is_404(api, number):
    for method, data in [("GET", None), ("PATCH", {"title": "x"}), ("DELETE", None)]:
        assert_problem(api(method, f"posts/{number}", data), 404)


@pytest.mark.parametrize("path", ["", "nothing", "posts/1/more", "Posts", "../x"])
def test_an_unknown_address_is_a_404_problem_for_every_method(anybody, path):
    for method in ("GET", "POST", "DELETE"):
        assert_problem(anybody(method, path), 404)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("async-hello", {"GET", "HEAD"}),
        ("user-info", {"GET", "HEAD"}),
        ("tokens", {"POST", "DELETE"}),
        ("posts", {"GET", "HEAD", "POST"}),
        ("posts/1", {"GET", "HEAD", "PATCH", "DELETE"}),
    ],
)
def test_another_method_is_405_and_names_those_that_are_possible(anybody, path, allowed):
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - allowed:
        answer = anybody(method, path, POST)
        assert_problem(answer, 405)
        assert set(answer["Allow"].split(", ")) == allowed


# Throttling


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [("read", "GET", "posts"), ("write", "POST", "posts"), ("token", "POST", "tokens")],
)
def test_too_many_requests_from_one_address_are_429_and_others_go_on(
    api, settings, client, monkeypatch, kind, method, path
):
    settings.API_REQUESTS_PER_MINUTE = {"read": 100, "write": 100, "token": 100} | {kind: 2}
    monkeypatch.setattr(guard.time, "time", lambda: 59 * 60 + 15.9)
    for _ in range(2):
        assert api(method, path, POST).status_code != 429
    answer = api(method, path, POST)
    assert_problem(answer, 429)
    assert answer["Retry-After"] == "45"
    assert api.get("user-info" if kind != "read" else "x").status_code != 429
    client.defaults["REMOTE_ADDR"] = "192.0.2.9"
    assert api(method, path, POST).status_code != 429
    del client.defaults["REMOTE_ADDR"]
    assert api(method, path, POST).status_code == 429
    monkeypatch.setattr(guard.time, "time", lambda: 60 * 60 + 0.9)
    assert api(method, path, POST).status_code != 429


def test_no_count_is_kept_for_ever_where_its_minute_ends_while_it_is_counted(
    anybody, settings, monkeypatch, redis
):
    """Or its address would be refused from then on, whatever it does."""
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis}
    }
    counts = Redis.from_url(redis)
    counts.flushall()
    found = Redis.exists

    def a_minute_passes(redis, key):
        there = found(redis, key)
        redis.pexpire(key, redis.pttl(key) - guard.MINUTE * 1000)
        return there

    monkeypatch.setattr(Redis, "exists", a_minute_passes)
    assert anybody.get("posts").status_code == 200
    keys = counts.keys("*api:read:*")
    assert keys
    assert all(counts.pttl(key) > 0 for key in keys)


def test_without_redis_requests_are_answered_uncounted(anybody, settings, caplog):
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
        }
    }
    assert anybody.get("posts").status_code == 200
    assert "not counted" in caplog.text


# A post that goes away on the way


def test_a_post_deleted_by_somebody_else_meanwhile_is_404(api, mina, monkeypatch):
    post = make(mina)
    original = services.get

    async def slow(number):
        found = await original(number)
        await Post.objects.filter(pk=number).adelete()
        return found

    monkeypatch.setattr(services, "get", slow)
    for method in ("PATCH", "DELETE"):
        assert_problem(api(method, f"posts/{post.pk}", {"title": "x"}), 404)
        post.save(force_insert=True)


# Ninja's document


def test_the_document_names_every_operation_and_its_problems(client):
    document = client.get("/api/ninja/openapi.json").json()
    operations = {(method, path) for path, item in document["paths"].items() for method in item}
    assert len(operations) == 9
    for path in document["paths"].values():
        for operation in path.values():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_the_documents_page_loads_our_own_files_alone(client, collected):
    page = client.get("/api/ninja/docs").content.decode()
    for link in re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', page):
        assert link.startswith("/static/")
        assert (collected / link.removeprefix("/static/")).is_file()
    assert "swagger-ui-bundle" in page
    assert not re.search(r"<style|<script(?![^>]*( src=|application/json))| style=", page)


def test_the_page_of_both_links_to_them(client, collected):
    page = client.get("/api/").content.decode()
    for link in re.findall(r'href="(/api/[^"]+)"', page):
        assert client.get(link).status_code == 200
