"""The posts by Django REST framework, with the async views of adrf.

Plain REST framework answers 500 to `async def get`. adrf awaits the handler; authentication, permissions and
content negotiation still run in a thread, an async authenticator by a hop there and back.
"""

from adrf.views import APIView
from django.core.exceptions import PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder
from rest_framework import exceptions, negotiation, permissions, renderers, serializers
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.parsers import JSONParser
from rest_framework.response import Response

from api import posts as shared
from api import problems
from api.models import Token
from posts import services
from posts.forms import normal_tag
from posts.models import Post


class Checked(serializers.Field):
    """A field whose value a function checks and cleans, raising ValueError with a sentence."""

    def __init__(self, check, **kwargs):
        super().__init__(**kwargs)
        self.check = check

    def to_internal_value(self, data):
        try:
            return self.check(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None

    def validate_empty_values(self, data):
        # `null` goes to the check as well, which says what it is not.
        return (False, data) if data is None else super().validate_empty_values(data)


class Input(serializers.Serializer):
    def to_internal_value(self, data):
        values = super().to_internal_value(data)
        unknown = set(data) - set(self.fields)
        if unknown:
            raise serializers.ValidationError(dict.fromkeys(unknown, "There is no such field."))
        return values


class PostInput(Input):
    title = Checked(shared.title)
    body = Checked(shared.body)
    tags = Checked(shared.tags, required=False)


class Credentials(Input):
    username = Checked(shared.username)
    password = Checked(shared.password)


class ListQuery(serializers.Serializer):
    page = Checked(shared.page, default=1)
    page_size = Checked(shared.page_size, default=shared.PAGE_SIZE)
    author = Checked(shared.username, default="")
    tag = Checked(normal_tag, default="")
    search = Checked(shared.search, default="")
    ordering = Checked(lambda value: shared.choice(value, services.ORDERINGS), default=services.NEWEST)


class InfoQuery(serializers.Serializer):
    by = Checked(lambda value: shared.choice(value, shared.WAYS), default="aget")


class Bearer(BaseAuthentication):
    async def authenticate(self, request):
        scheme, _, key = get_authorization_header(request).decode("latin-1").partition(" ")
        token = await Token.find(key) if scheme.lower() == "bearer" else None
        return (token.user, token) if token else None

    def authenticate_header(self, request):
        return "Bearer"


class Renderer(renderers.JSONRenderer):
    encoder_class = DjangoJSONEncoder  # as Ninja writes times: to the millisecond


class AlwaysJSON(negotiation.BaseContentNegotiation):
    """A client that does not ask for JSON gets it all the same, as Ninja does it."""

    def select_parser(self, request, parsers):
        return parsers[0]

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


class QueryError(serializers.ValidationError):
    pass


def flat(errors, path=()):
    if isinstance(errors, dict):
        for name, inner in errors.items():
            yield from flat(inner, path if name == "non_field_errors" else (*path, name))
    else:
        yield from ((path, str(detail)) for detail in errors)


def on_exception(error, context):
    if isinstance(error, serializers.ValidationError):
        if isinstance(error, QueryError):
            return problems.invalid(problems.in_query(path[0], detail) for path, detail in flat(error.detail))
        return problems.invalid(problems.in_body(path, detail) for path, detail in flat(error.detail))
    if isinstance(error, exceptions.NotAuthenticated):
        return problems.problem(401, "A valid token is needed: Authorization: Bearer ...")
    if isinstance(error, Post.DoesNotExist):
        return problems.problem(404, "There is no such post.")
    if isinstance(error, PermissionDenied):
        return problems.problem(403, str(error))
    if isinstance(error, exceptions.APIException):
        return problems.problem(error.status_code, str(error.detail))
    return None


class View(APIView):
    renderer_classes = [Renderer]
    parser_classes = [JSONParser]
    content_negotiation_class = AlwaysJSON
    authentication_classes = [Bearer]
    permission_classes = [permissions.IsAuthenticated]
    public = ()  # methods that need no token, and look at none

    def get_authenticators(self):
        return [] if self.request.method in self.public else super().get_authenticators()

    def get_permissions(self):
        return [] if self.request.method in self.public else super().get_permissions()

    def get_exception_handler(self):
        return on_exception

    def taken(self, serializer, data, error=serializers.ValidationError, **kwargs):
        serializer = serializer(data=data, **kwargs)
        if not serializer.is_valid():
            raise error(serializer.errors)
        return serializer.validated_data

    def asked(self, serializer):
        return self.taken(serializer, self.request.query_params.dict(), QueryError)


class AsyncHello(View):
    public = ("GET",)

    async def get(self, request):
        return Response(await shared.hello())


class Info(View):
    async def get(self, request):
        return Response(await shared.user_info(request.user.pk, self.asked(InfoQuery)["by"]))


class Tokens(View):
    public = ("POST",)

    async def post(self, request):
        user = await shared.who_knows_the_password(**self.taken(Credentials, request.data))
        if user is None:
            return problems.problem(401, "No active user has this name and password.")
        token, key = await Token.issue(user)
        return Response({"token": key, "expires_at": token.expires_at}, status=201)

    async def delete(self, request):
        await request.auth.adelete()
        return Response(status=204)


class Posts(View):
    public = ("GET",)

    async def get(self, request):
        values = self.asked(ListQuery)
        page = await services.page(values.pop("page"), values.pop("page_size"), **values)
        return Response(shared.represent_page(request, page))

    async def post(self, request):
        post = await services.create(request.user, **self.taken(PostInput, request.data))
        return Response(shared.represent(post), status=201)


class OnePost(View):
    public = ("GET",)

    async def get(self, request, number):
        return Response(shared.represent(await services.get(number)))

    async def patch(self, request, number):
        changes = self.taken(PostInput, request.data, partial=True)
        post = await services.edit(request.user, await services.get(number), **changes)
        return Response(shared.represent(post))

    async def delete(self, request, number):
        await services.delete(request.user, await services.get(number))
        return Response(status=204)
