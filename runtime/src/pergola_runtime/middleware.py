"""Django's own middleware, called in place where it does nothing but compute.

Under ASGI Django sends each `process_request` and `process_response` of its middleware to a thread and back,
whatever it does. Here they are called where they are, and go to the thread only where they may reach the
database, the cache or code of the project. What a project wrote itself, its subclasses of Django's included,
stays as it is.
"""

import sys
from functools import partial, wraps

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.contrib.messages.storage.base import BaseStorage
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import deprecation, module_loading
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from pergola_runtime import threads

LARGE = 65536  # bytes; what takes longer to compute with than to send to a thread

HOOKS = ("process_request", "process_view", "process_response")
SESSIONS = "django.contrib.sessions.backends."
MESSAGES = "django.contrib.messages.storage."


class InPlace:
    """Before a class of Django's among the bases: its hooks run in the event loop's thread."""

    @wraps(MiddlewareMixin.__acall__)  # agents report a method by its name
    async def __acall__(self, request):
        response = hasattr(self, "process_request") and self.process_request(request)
        response = response or await self.get_response(request)
        if not hasattr(self, "process_response"):
            return response
        if self.blocks(request, response):
            return await sync_to_async(self.process_response)(request, response)
        return self.process_response(request, response)

    def blocks(self, request, response):
        """Whether `process_response` may do more than compute with what is there."""
        return False


class OfBody(InPlace):
    def blocks(self, request, response):
        return not response.streaming and len(response.content) > LARGE


class Csrf(InPlace):
    @wraps(CsrfViewMiddleware.process_view)
    async def process_view(self, request, callback, callback_args, callback_kwargs):
        check = super().process_view
        safe = request.method in ("GET", "HEAD", "OPTIONS", "TRACE")
        if safe or getattr(callback, "csrf_exempt", False):
            return check(request, callback, callback_args, callback_kwargs)
        # reads the form, its files with the project's handlers; and a refusal is a view of the project's
        return await sync_to_async(check)(request, callback, callback_args, callback_kwargs)


class Session(InPlace):
    """Django's async session API saves in several thread hops; the synchronous one needs one."""

    def blocks(self, request, response):
        modified = getattr(getattr(request, "session", None), "modified", None)
        return modified or (modified is not None and settings.SESSION_SAVE_EVERY_REQUEST)


class Authentication(InPlace):
    """`request.auser()` needs one thread hop, not one for each query."""

    def __init__(self, get_response):
        super().__init__(get_response)
        from django.contrib.auth.backends import BaseBackend, ModelBackend  # wants its model

        known = {(kind.get_user, kind.aget_user) for kind in (BaseBackend, ModelBackend)}
        asked = map(import_string, settings.AUTHENTICATION_BACKENDS)
        asked = {(getattr(kind, "get_user", None), getattr(kind, "aget_user", None)) for kind in asked}
        self.at_once = settings.SESSION_ENGINE.startswith(SESSIONS) and asked <= known

    def process_request(self, request):
        if self.at_once and hasattr(request, "session"):
            request.user = SimpleLazyObject(partial(user, request))
            request.auser = partial(auser, request)
        else:
            super().process_request(request)


def user(request):
    from django.contrib.auth import middleware

    return middleware.get_user(request)


async def auser(request):
    if not hasattr(request, "_acached_user"):
        session = request.session
        asks = session.session_key is not None and not hasattr(session, "_session_cache")
        request._acached_user = await (threads.sync_to_async(get_user) if asks else auth.aget_user)(request)
    return request._acached_user


def get_user(request):
    """In one hop, where the session and the backend are Django's own."""
    return auth.get_user(request)


threads.READING.add(get_user)


class Message(InPlace):
    """Storing may reach the session, and code of the project that says how a message reads."""

    def blocks(self, request, response):
        storage = getattr(request, "_messages", None)
        known = getattr(type(storage), "update", None) is BaseStorage.update
        return not known or storage.used or storage.added_new


def break_cycles(request):
    """Break the reference cycles of a request that has ended with its user and its messages.

    They would wait for the garbage collector. Code that kept either still finds the values that the request
    had.
    """
    ended = object.__new__(type(request))
    vars(ended).update(vars(request))
    its_user, _, messages = (vars(ended).pop(name, None) for name in ("user", "auser", "_messages"))
    lazy = vars(its_user) if type(its_user) is SimpleLazyObject else {}
    for there, name in ((vars(request), "auser"), (lazy, "_setupfunc")):
        call = there.get(name)
        if type(call) is partial and call.func in (user, auser) and call.args == (request,):
            there[name] = partial(call.func, ended)
    if issubclass(type(messages), BaseStorage):
        for storage in (messages, *getattr(messages, "storages", ())):
            if storage.request is request:
                storage.request = ended


# what is not here goes to the thread, as everywhere: Django's own that ask the database or the cache
IN_PLACE = {
    "django.contrib.auth.middleware.AuthenticationMiddleware": Authentication,
    "django.contrib.messages.middleware.MessageMiddleware": Message,
    "django.contrib.sessions.middleware.SessionMiddleware": Session,
    "django.middleware.clickjacking.XFrameOptionsMiddleware": InPlace,
    "django.middleware.common.CommonMiddleware": InPlace,
    "django.middleware.csp.ContentSecurityPolicyMiddleware": InPlace,
    "django.middleware.csrf.CsrfViewMiddleware": Csrf,
    "django.middleware.gzip.GZipMiddleware": OfBody,
    "django.middleware.http.ConditionalGetMiddleware": OfBody,
    "django.middleware.locale.LocaleMiddleware": InPlace,
    "django.middleware.security.SecurityMiddleware": InPlace,
}


def computes(kind):
    """Whether this class only computes, with this project's settings."""
    return {
        Csrf: not settings.CSRF_USE_SESSIONS,
        InPlace: type(settings.ALLOWED_HOSTS) in (list, tuple),  # a class of the project's may ask a database
        Session: settings.SESSION_ENGINE.startswith(SESSIONS),
        Message: settings.MESSAGE_STORAGE.startswith(MESSAGES),
    }.get(kind, True)


def in_place(imports):
    """An import_string() that returns Django's own middleware in place; any other as `imports` returns it.

    An agent's import_string() returns a class of its own around Django's, with the names of Django's. So the
    class is replaced where Django looks it up, below the agent's function, which then wraps ours.
    """

    def load(path):
        def look_up(module_path, name):
            found = cached(module_path, name)
            return placed(found) if f"{module_path}.{name}" == path else found

        cached, module_loading.cached_import = module_loading.cached_import, look_up
        try:
            return imports(path)
        finally:
            module_loading.cached_import = cached

    return load


def placed(middleware):
    kind = IN_PLACE.get(f"{middleware.__module__}.{getattr(middleware, '__qualname__', '')}")
    if kind is None or not computes(kind):
        return middleware
    if not threads.is_defined_in(deprecation, MiddlewareMixin.__acall__):
        return middleware  # InPlace would hide an agent's
    hooks = filter(None, (getattr(middleware, name, None) for name in HOOKS))
    if not all(threads.is_defined_in(sys.modules[middleware.__module__], hook) for hook in hooks):
        return middleware  # a project's or a package's, which may reach the database
    # under Django's name, by which agents report it
    return type(middleware.__name__, (kind, middleware), {"__module__": middleware.__module__})
