"""What middleware promises is what Django puts on a request, and a request goes when it has ended."""

import asyncio
import gc
import pickle
import weakref

import pytest
from asgi_client import Client


@pytest.fixture
def make(django):
    """A request, with a session, behind our middleware of this name; or, without, Django's own of both."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.handlers import asgi
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import ASGIRequest, in_place

    def make(path=None, **there):
        kind = ASGIRequest if path else asgi.ASGIRequest
        request = kind({"type": "http", "method": "GET", "path": "/", "headers": []}, None)
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
    assert pickle.loads(pickle.dumps(make(USERS))).user.is_anonymous  # noqa: S301


def test_a_user_who_was_there_before_the_middleware_is_not_there_behind_it(make):
    assert make(USERS, user="somebody").user != "somebody"


def test_a_user_who_is_put_there_stays(make):
    request = make(USERS)
    request.user = "somebody"
    assert request.auser
    assert request.user == "somebody"


def test_what_is_not_there_is_missed_in_djangos_words(make):
    said = []
    for request in (make(USERS), make()):
        with pytest.raises(AttributeError) as missed:
            request.nothing  # noqa: B018
        said.append((str(missed.value), missed.value.name))
    assert said[0] == said[1]


def test_messages_are_made_at_their_first_use(make):
    from django.http import HttpResponse
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import in_place, used

    middleware = import_string(in_place(MESSAGES))(lambda request: None)
    request = make(MESSAGES)
    assert not used(request)
    assert middleware.blocks(request, HttpResponse()) is False
    assert "_messages" not in vars(request)
    assert not list(request._messages)
    assert request._messages is request._messages
    assert used(request)


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
