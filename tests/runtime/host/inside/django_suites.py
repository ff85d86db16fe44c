"""Runs tests that Django ships for itself, each request of theirs through an asynchronous handler.

    python django_suites.py django|lean TESTS ARGUMENTS...

`lean` is Pergola's handler with its middleware, `django` Django's own, to compare with; TESTS is the
directory of runtests.py, and the arguments are for that. Most of these tests use the synchronous client:
here its requests walk the asynchronous chain of middleware, where the two differ. What came out is the last
line, as JSON.
"""

import contextlib
import json
import multiprocessing
import runpy
import sys
from pathlib import Path

import django.contrib.staticfiles.handlers  # whose handler is Django's, subclass and all
import django.core.asgi
import django.core.handlers.asgi
from asgiref.sync import async_to_sync
from django.core.handlers import base
from django.core.handlers.base import BaseHandler
from django.test.client import ClientHandler
from django.test.runner import DiscoverRunner
from django.utils.module_loading import import_string

# of all processes of --parallel, which are forked from this one
COUNTED = {name: multiprocessing.Value("i") for name in ("handled", "walked", "in_place")}
RESULT = {}


def count(name, number=1):
    with COUNTED[name].get_lock():
        COUNTED[name].value += number


def walk_asynchronously():
    load = BaseHandler.load_middleware

    def get_response(self, request):
        count("walked")
        return async_to_sync(self.get_response_async)(request)

    ClientHandler.load_middleware = lambda self, is_async=True: load(self, is_async=True)
    ClientHandler.get_response = get_response


def be_lean():
    from pergola_runtime import lean
    from pergola_runtime.lean import LeanHandler
    from pergola_runtime.middleware import in_place

    load, call = BaseHandler.load_middleware, LeanHandler.__call__

    def load_middleware(self, is_async=False):
        if is_async:
            base.import_string = counted_in_place
        try:
            load(self, is_async)
        finally:
            base.import_string = import_string

    def counted_in_place(path):
        middleware = in_place(import_string)(path)
        count("in_place", middleware is not import_string(path))
        return middleware

    async def counted(self, scope, receive, send):
        count("handled")
        await call(self, scope, receive, send)

    # who goes in its first moments is answered all the same; these tests go at once, and want no answer
    lean.LISTEN_AFTER = 0
    BaseHandler.load_middleware = load_middleware
    LeanHandler.__call__ = counted
    django.core.handlers.asgi.ASGIHandler = django.core.asgi.ASGIHandler = LeanHandler


def name_of(test):
    return getattr(test, "test_case", test).id()  # of a subtest the test


def keep_result():
    def suite_result(self, suite, result, **kwargs):
        bad = [test for test, _ in [*result.failures, *result.errors]] + result.unexpectedSuccesses
        RESULT.update(
            ran=result.testsRun, skipped=len(result.skipped), failed=sorted({name_of(test) for test in bad})
        )
        return len(bad)

    DiscoverRunner.suite_result = suite_result


if __name__ == "__main__":
    _, handler, tests, *arguments = sys.argv
    if handler == "lean":
        be_lean()
    walk_asynchronously()
    keep_result()
    runner = Path(tests) / "runtests.py"
    sys.path.insert(0, str(runner.parent))
    sys.argv = [str(runner), *arguments]
    # it ends with a status of its own, which says no more than the result
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(runner), run_name="__main__")
    print(json.dumps(RESULT | {name: counted.value for name, counted in COUNTED.items()}))
