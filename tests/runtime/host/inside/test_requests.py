"""Middleware puts on a request what Django does, and a request goes when it has ended."""

import asyncio
import copy
import gc
import pickle
import weakref
from types import ModuleType

import pytest
from asgi_client import Client


@pytest.fixture
def make(django):
    """A request, with a session, behind our middleware of these names; or, without, Django's own of users."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.handlers.asgi import ASGIRequest
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place

    def make(*paths, **there):
        request = ASGIRequest({"type": "http", "method": "GET", "path": "/", "headers": []}, None)
        request.session = SessionStore()
        vars(request).update(there)
        for middleware in map(in_place(import_string), paths) if paths else [import_string(USERS)]:
            middleware(lambda request: None).process_request(request)
        return request

    return make


USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"


def test_a_user_is_there_as_in_django(make):
    ours, theirs = make(USERS), make()
    assert hasattr(ours, "user")
    assert type(ours.user) is type(theirs.user)
    assert ours.user is ours.user
    assert ours.user.is_anonymous
    assert asyncio.run(ours.auser()).is_anonymous
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda request: pickle.loads(pickle.dumps(request))])  # noqa: S301
def test_a_request_can_be_copied_whole(make, copied):
    for request in (make(USERS), make()):
        assert request.user.is_anonymous  # or pickling puts it there while it goes through the request
        again = copied(request)
        assert again.user.is_anonymous
        assert asyncio.run(again.auser()).is_anonymous


def test_what_was_on_a_request_is_there_when_it_has_gone(make):
    """As it was when it ended, which is later than when middleware put it there."""
    from django.contrib.messages.storage.base import Message
    from django.contrib.messages.storage.cookie import CookieStorage
    from pergola_runtime.middleware import break_cycles

    said = CookieStorage(None)._encode([Message(20, "said")])
    request = make(USERS, MESSAGES, COOKIES={"messages": said})
    user, messages = request.user, request._messages
    request._cached_user, request._acached_user = "somebody", "somebody else"
    gone = weakref.ref(request)
    break_cycles(request)
    auser = request.auser  # who has it from before keeps the request
    del request
    assert gone() is None
    assert user == "somebody"
    assert asyncio.run(auser()) == "somebody else"
    assert [str(message) for message in messages] == ["said"]


def test_what_a_project_put_on_a_request_is_left_alone(make):
    from django.utils.functional import SimpleLazyObject
    from pergola_runtime.middleware import break_cycles

    def never():
        pytest.fail("this asked for the user")

    request = make(USERS, MESSAGES)
    request.user, request.auser, request._messages = SimpleLazyObject(never), never, never
    before = dict(vars(request))
    break_cycles(request)
    assert all(vars(request)[name] is value for name, value in before.items())
    assert vars(request.user)["_setupfunc"] is never


def test_what_is_of_another_request_is_left_alone(make):
    from pergola_runtime.middleware import break_cycles

    other, request = make(USERS, MESSAGES), make()
    setup = vars(other.user)["_setupfunc"]
    request.user, request.auser, request._messages = other.user, other.auser, other._messages
    break_cycles(request)
    assert request.auser is other.auser
    assert vars(other.user)["_setupfunc"] is setup
    assert other._messages.request is other


def test_a_user_who_was_there_before_the_middleware_is_not_there_behind_it(make):
    assert make(USERS, user="somebody").user != "somebody"


def test_a_user_who_is_put_there_stays(make):
    request = make(USERS)
    request.user = "somebody"
    assert request.auser
    assert request.user == "somebody"


@pytest.mark.parametrize("touch", [list, lambda storage: storage.add(20, "said"), lambda storage: None])
def test_messages_go_to_the_thread_only_to_be_stored(make, touch):
    from django.http import HttpResponse
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place

    request = make(MESSAGES)
    asked = touch(request._messages) is not None or bool(request._messages._queued_messages)
    assert (
        bool(in_place(import_string)(MESSAGES)(lambda request: None).blocks(request, HttpResponse())) is asked
    )


@pytest.mark.parametrize("base", ["object", "django.contrib.messages.storage.fallback.FallbackStorage"])
def test_what_a_project_put_in_the_place_of_messages_is_always_asked_in_the_thread(make, base):
    from django.http import HttpResponse
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place

    class Own(import_string(base) if "." in base else object):
        def update(self, response):
            return []

    request = make(MESSAGES)
    request._messages = Own(request) if "." in base else Own()
    assert in_place(import_string)(MESSAGES)(lambda request: None).blocks(request, HttpResponse())


@pytest.mark.parametrize("path", ["/hello", "/sync_hello", "/who", "/sync_who", "/count", "/say"])
def test_a_request_that_has_ended_is_gone_without_the_garbage_collector(django, monkeypatch, path):
    from pergola_runtime.choice import get_asgi_application
    from pergola_runtime.lean import LeanHandler

    create, requests = LeanHandler.create_request, []

    def creates(*arguments):
        request, response = create(*arguments)
        requests.append(weakref.ref(request))
        return request, response

    monkeypatch.setattr(LeanHandler, "create_request", creates)

    async def ask():
        answer = await Client(get_asgi_application()).request("GET", path)
        assert answer.status == (302 if path == "/say" else 200)
        for _ in range(100):  # until the loop has let go of the tasks that ended
            if requests[0]() is None:
                return True
            await asyncio.sleep(0.01)
        return False

    gc.disable()
    try:
        assert asyncio.run(ask())
    finally:
        gc.enable()


def test_an_error_of_a_stream_has_no_exception_group_as_its_context(django):
    """From 6.1 on Django handles a request in a task group, whose error it raises from the group's."""
    import django as package
    from django.core.handlers.asgi import ASGIHandler
    from django.http import StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path
    from pergola_runtime.lean import LeanHandler

    async def view(request):
        async def parts():
            yield "one"
            raise LookupError("no second part")

        return StreamingHttpResponse(parts())

    urls = ModuleType("urls")
    urls.urlpatterns = [path("", view)]

    def context_of_the_error(application):
        raised = []

        async def keep(scope, receive, send):
            try:
                await application(scope, receive, send)
            except LookupError as error:
                raised.append(error)

        asyncio.run(Client(keep).request("GET", "/"))
        (error,) = raised
        return type(error.__context__)

    with override_settings(MIDDLEWARE=(), ROOT_URLCONF=urls):
        assert context_of_the_error(LeanHandler()) is type(None)
        group = ExceptionGroup if package.VERSION >= (6, 1) else type(None)
        assert context_of_the_error(ASGIHandler()) is group
