"""The posts by Django Ninja: types say what comes in and goes out, and make the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.core.exceptions import PermissionDenied
from ninja import NinjaAPI, Query, Schema, Status
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from api import posts as shared
from api import problems
from api.models import Token
from posts import services
from posts.forms import normal_tag
from posts.models import MAX_BODY, MAX_TAG, MAX_TAGS, MAX_TITLE, SPACES, TAG_PATTERN, Post

SOME_TEXT = rf"^[^\x00]*[^{SPACES}\x00][^\x00]*$"


def text(check, limit):
    schema = {"type": "string", "minLength": 1, "maxLength": limit, "pattern": SOME_TEXT}
    return Annotated[Any, BeforeValidator(check), WithJsonSchema(schema)]


def number(check, limit):
    schema = {"type": "integer", "minimum": 1, "maximum": limit}
    return Annotated[int, BeforeValidator(check), WithJsonSchema(schema)]


Title = text(shared.title, MAX_TITLE)
Body = text(shared.body, MAX_BODY)
TAG = {"type": "string", "minLength": 1, "maxLength": MAX_TAG, "pattern": TAG_PATTERN}
Tags = Annotated[
    list[str],
    BeforeValidator(shared.tags),
    WithJsonSchema({"type": "array", "maxItems": MAX_TAGS, "items": TAG}),
]


class Input(Schema):
    model_config = ConfigDict(extra="forbid")


class PostIn(Input):
    title: Title
    body: Body
    tags: Tags = []


class PostChange(Input):
    title: Title = None
    body: Body = None
    tags: Tags = None


class Credentials(Input):
    username: text(shared.username, shared.MAX_USERNAME)
    password: text(shared.password, shared.MAX_PASSWORD)


class ListQuery(Schema):
    page: number(shared.page, services.MAX_PAGE) = 1
    page_size: number(shared.page_size, services.MAX_PAGE_SIZE) = shared.PAGE_SIZE
    author: text(shared.username, shared.MAX_USERNAME) = ""
    tag: Annotated[str, BeforeValidator(normal_tag), WithJsonSchema(TAG)] = ""
    search: text(shared.search, services.MAX_SEARCH) = ""
    ordering: Literal[tuple(services.ORDERINGS)] = services.NEWEST


class AuthorOut(Schema):
    username: str
    name: str


class AttachmentOut(Schema):
    name: str
    size: int
    url: str


class PostOut(Schema):
    id: int
    title: str
    body: str
    author: AuthorOut
    tags: list[str]
    attachments: list[AttachmentOut]
    views: int
    created_at: datetime
    updated_at: datetime


class PageOut(Schema):
    count: int
    next: str | None
    previous: str | None
    results: list[PostOut]


class TokenOut(Schema):
    token: str
    expires_at: datetime


class Hello(Schema):
    message: str


class UserInfo(Schema):
    username: str
    name: str
    by: Literal[shared.WAYS]


class Error(Schema):
    detail: str
    pointer: str = Field(None, description="where in the body, a JSON pointer")
    parameter: str = Field(None, description="which query parameter")


class Problem(Schema):
    type: str
    title: str
    status: int
    detail: str
    errors: list[Error] = []


class Bearer(HttpBearer):
    async def authenticate(self, request, token):
        return await Token.find(token)


class API(NinjaAPI):
    def get_openapi_schema(self, **kwargs):
        """Each operation may answer a problem; Ninja knows responses of one media type alone."""
        document = super().get_openapi_schema(**kwargs)
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= schema.pop("$defs") | {"Problem": schema}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"]["4XX"] = {"description": "a problem (RFC 9457)", "content": content}
        return document


api = API(
    title="Posts",
    version="1",
    urls_namespace="api:ninja",
    description="The posts of the sample application, by async operations. Token: `POST tokens`.",
)
protected = Bearer()


@api.exception_handler(ValidationError)
def on_invalid(request, error):
    def place(item):
        kind, *path = item["loc"]
        detail = item["msg"].removeprefix("Value error, ")
        if kind == "query":
            return problems.in_query(path[0], detail)
        return problems.in_body(path[1:], detail)  # the first step is the argument's name

    return problems.invalid([place(item) for item in error.errors])


@api.exception_handler(AuthenticationError)
def on_unknown(request, error):
    return problems.problem(401, "A valid token is needed: Authorization: Bearer ...")


@api.exception_handler(PermissionDenied)
def on_denied(request, error):
    return problems.problem(403, str(error))


@api.exception_handler(Post.DoesNotExist)
def on_missing(request, error):
    return problems.problem(404, "There is no such post.")


@api.exception_handler(HttpError)
def on_error(request, error):
    return problems.problem(error.status_code, str(error))


@api.get("async-hello", response=Hello, url_name="async-hello")
async def async_hello(request):
    return await shared.hello()


@api.get("user-info", response=UserInfo, auth=protected, url_name="user-info")
async def user_info(request, by: Literal[shared.WAYS] = "aget"):
    return await shared.user_info(request.auth.user_id, by)


@api.post("tokens", response={201: TokenOut}, url_name="tokens")
async def issue_token(request, payload: Credentials):
    user = await shared.who_knows_the_password(**payload.dict())
    if user is None:
        raise HttpError(401, "No active user has this name and password.")
    token, key = await Token.issue(user)
    return Status(201, {"token": key, "expires_at": token.expires_at})


@api.delete("tokens", response={204: None}, auth=protected, url_name="tokens")
async def revoke_token(request):
    await request.auth.adelete()
    return Status(204, None)


@api.get("posts", response=PageOut, url_name="posts")
async def list_posts(request, query: Query[ListQuery]):
    values = query.dict()
    page = await services.page(values.pop("page"), values.pop("page_size"), **values)
    return shared.represent_page(request, page)


@api.post("posts", response={201: PostOut}, auth=protected, url_name="posts")
async def create_post(request, payload: PostIn):
    return Status(201, shared.represent(await services.create(request.auth.user, **payload.dict())))


@api.get("posts/{int:number}", response=PostOut, url_name="post")
async def get_post(request, number: int):
    return shared.represent(await services.get(number))


@api.patch("posts/{int:number}", response=PostOut, auth=protected, url_name="post")
async def edit_post(request, number: int, payload: PostChange):
    post = await services.get(number)
    changes = payload.dict(exclude_unset=True)
    return shared.represent(await services.edit(request.auth.user, post, **changes))


@api.delete("posts/{int:number}", response={204: None}, auth=protected, url_name="post")
async def delete_post(request, number: int):
    await services.delete(request.auth.user, await services.get(number))
    return Status(204, None)
