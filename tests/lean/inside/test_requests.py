"""Middleware puts on a request what Django does, and a request goes when it has ended."""

import asyncio
import copy
import gc
import pickle
import weakref

import pytest
from asgi_client import Client


@pytest.fixture
def make(django):
    """A request, with a session, behind our middleware of this name; or, without, Django's own of users."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.handlers.asgi import ASGIRequest
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place

    def make(path=None, **there):
        request = ASGIRequest({"type": "http", "method": "GET", "path": "/", "headers": []}, None)
        request.session = SessionStore()
        vars(request).update(there)
        import_string(in_place(path) if path else USERS)(lambda request: None).process_request(request)
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


def test_what_a_request_held_is_there_when_it_has_gone(make):
    from django.contrib.messages.storage.base import Message
    from django.contrib.messages.storage.cookie import CookieStorage

    request = make(USERS)
    user, auser, session = request.user, request.auser, request.session
    gone = weakref.ref(request)
    del request
    assert gone() is None
    assert user.is_anonymous
    assert asyncio.run(auser()).is_anonymous

    said = CookieStorage(None)._encode([Message(20, "said")])
    request = make(MESSAGES, session=session, COOKIES={"messages": said})
    messages, gone = request._messages, weakref.ref(request)
    del request
    assert gone() is None
    assert [str(message) for message in messages] == ["said"]


def test_a_user_who_was_there_before_the_middleware_is_not_there_behind_it(make):
    assert make(USERS, user="somebody").user != "somebody"


def test_a_user_who_is_put_there_stays(make):
    request = make(USERS)
    request.user = "somebody"
    assert request.auser
    assert request.user == "somebody"


def test_messages_are_made_at_their_first_use(make):
    from django.conf import settings
    from django.http import HttpResponse
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place, used

    middleware = import_string(in_place(MESSAGES))(lambda request: None)
    request = make(MESSAGES)
    assert not used(request)
    assert middleware.blocks(request, HttpResponse()) is False
    assert repr(request._messages).startswith("<SimpleLazyObject")
    assert not list(request._messages)
    assert request._messages is request._messages
    assert used(request)
    assert isinstance(request._messages, import_string(settings.MESSAGE_STORAGE))


def test_a_request_of_another_kind_has_what_django_puts_there(make):
    from django.http import HttpRequest, HttpResponse
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place, used

    for path in (USERS, MESSAGES):
        request = HttpRequest()
        request.session = make(USERS).session
        middleware = import_string(in_place(path))(lambda request: None)
        middleware.process_request(request)
        assert {"user", "auser"} <= set(vars(request)) or "_messages" in vars(request)
    assert not used(request)
    assert not list(request._messages)
    assert used(request)
    assert middleware.process_response(request, HttpResponse()).status_code == 200


@pytest.mark.parametrize("path", ["/hello", "/sync_hello", "/who", "/count"])
def test_a_request_that_has_ended_is_gone_without_the_garbage_collector(django, monkeypatch, path):
    from pergola_runtime.handler import LeanHandler, get_asgi_application

    create, requests = LeanHandler.create_request, []

    def creates(*arguments):
        request, response = create(*arguments)
        requests.append(weakref.ref(request))
        return request, response

    monkeypatch.setattr(LeanHandler, "create_request", creates)

    async def ask():
        answer = await Client(get_asgi_application()).request("GET", path)
        assert answer.status == 200
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
