"""What the runtime takes from other packages beyond their documentation (runtime/README.md lists it).

Each test fails when a new version changes it.
"""

import asyncio
import inspect
import re
from concurrent.futures import Executor

import psycopg
import pytest
from asgiref import sync
from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async
from psycopg.types import TypeInfo
from psycopg.types.string import StrDumper, TextLoader
from waiting import until


def test_a_requests_signals_have_no_receivers_but_these_in_django(django):
    from django.core import signals
    from django.core.handlers.asgi import ASGIHandler
    from pergola_runtime.lean import AT_REST, LeanHandler

    for signal in (signals.request_started, signals.request_finished):
        synchronous, asynchronous = signal._live_receivers(ASGIHandler)
        assert synchronous
        assert AT_REST.issuperset(synchronous)
        assert not asynchronous
        assert LeanHandler().at_rest(signal)  # and what sends it is recognised as Django's


def test_djangos_handler_calls_these_methods(django):
    """The lean handler calls them in the same order, in its own handle()."""
    from django.core import asgi
    from django.core.handlers.asgi import ASGIHandler

    assert {*re.findall(r"self\.(\w+)", inspect.getsource(ASGIHandler.handle))} == {
        *("__class__", "create_request", "listen_for_disconnect", "read_body", "run_get_response"),
        "send_response",
    }
    assert "return ASGIHandler()" in inspect.getsource(asgi.get_asgi_application)


@pytest.mark.parametrize("protocol", ["h11", "ours"])
def test_uvicorns_receive_is_recognised(django, directory, protocol):
    import uvicorn
    from pergola_runtime.gunicorn import Protocol  # a subclass of uvicorn's for httptools
    from pergola_runtime.lean import is_uvicorns

    async def application(scope, receive, send):
        found.append(is_uvicorns(receive))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def go():
        http = Protocol if protocol == "ours" else protocol
        config = uvicorn.Config(application, uds=path, http=http, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started, "uvicorn serves")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: testserver\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
        return answer

    found, path = [], str(directory / f"{protocol}.sock")
    assert asyncio.run(go()).startswith(b"HTTP/1.1 204 ")
    assert found == [True]


def test_a_signals_receivers_change_when_one_is_connected_or_goes(django):
    """By these the handler knows that nobody has come since it looked."""
    from django.dispatch import Signal

    signal = Signal(use_caching=True)
    before = [*signal.receivers]

    def receiver(**kwargs):
        pass

    signal.connect(receiver)
    connected = [*signal.receivers]
    assert connected != before
    signal.send(sender=Signal)
    assert [*signal.receivers] == connected
    signal.disconnect(receiver)
    assert [*signal.receivers] == before


def test_middleware_has_its_hooks_called_in_acall(django):
    from django.utils.deprecation import MiddlewareMixin

    source = inspect.getsource(MiddlewareMixin)
    assert "return self.__acall__(request)" in source
    assert "process_request" in source
    assert "process_response" in source


def test_each_middleware_called_in_place_is_there_and_has_these_hooks_alone(django):
    """A hook that is new would run in the event loop unread."""
    from django.utils.module_loading import import_string
    from pergola_runtime.middleware import IN_PLACE

    known = {
        "AuthenticationMiddleware": {"process_request"},
        "CommonMiddleware": {"process_request", "process_response"},
        "ConditionalGetMiddleware": {"process_response"},
        "ContentSecurityPolicyMiddleware": {"process_request", "process_response"},
        "CsrfViewMiddleware": {"process_request", "process_response", "process_view"},
        "GZipMiddleware": {"process_response"},
        "LocaleMiddleware": {"process_request", "process_response"},
        "MessageMiddleware": {"process_request", "process_response"},
        "SecurityMiddleware": {"process_request", "process_response"},
        "SessionMiddleware": {"process_request", "process_response"},
        "XFrameOptionsMiddleware": {"process_response"},
    }
    assert {name.rpartition(".")[2] for name in IN_PLACE} == set(known)
    for name in IN_PLACE:
        if name.startswith("django.middleware.csp") and django.VERSION < (6,):
            continue
        middleware = import_string(name)
        hooks = {
            hook
            for hook in dir(middleware)
            if hook.startswith("process_") or hook in ("__call__", "__acall__")
        }
        assert hooks - {"__call__", "__acall__"} == known[middleware.__name__], name


def test_session_and_messages_say_whether_they_would_be_stored(django):
    from django.contrib.messages.storage.cookie import CookieStorage
    from django.contrib.sessions.backends.db import SessionStore

    assert SessionStore().modified is False
    assert (CookieStorage(None).used, CookieStorage(None).added_new) == (False, False)


def test_middleware_puts_a_user_and_messages_on_a_request_in_this_way(django):
    from django.contrib.auth.middleware import AuthenticationMiddleware
    from django.contrib.messages.middleware import MessageMiddleware

    theirs = inspect.getsource(MessageMiddleware.process_request)
    assert "request._messages = default_storage(request)" in theirs
    theirs = inspect.getsource(AuthenticationMiddleware.process_request)
    assert "request.user = SimpleLazyObject(lambda: get_user(request))" in theirs
    assert "request.auser = partial(auser, request)" in theirs


def test_a_request_remembers_its_user_and_a_session_what_it_loaded(django):
    from django.contrib import auth
    from django.contrib.auth import middleware
    from django.contrib.sessions.backends.base import SessionBase

    source = inspect.getsource(middleware.auser)
    assert 'hasattr(request, "_acached_user")' in source
    assert "await auth.aget_user(request)" in source
    assert "self._session_cache" in inspect.getsource(SessionBase._aget_session)
    # nobody is asked where nobody can be logged in
    assert "self.session_key is None" in inspect.getsource(SessionBase._aget_session)
    assert inspect.iscoroutinefunction(auth.aget_user)


def test_settings_are_read_past_what_they_inherit_for_other_lazy_objects(django, monkeypatch):
    from django.conf import LazySettings, settings
    from django.test import override_settings
    from django.utils.functional import LazyObject

    proxied = {name for name, value in vars(LazyObject).items() if not getattr(value, "_mask_wrapped", True)}
    assert proxied
    assert all(name.startswith("__") for name in proxied)
    assert "__getattribute__" in vars(LazyObject)
    monkeypatch.setattr(LazySettings, "__getattribute__", object.__getattribute__)
    with override_settings(ONE_MORE="one more"):
        assert settings.ONE_MORE == "one more"
        assert settings.configured
        assert settings.is_overridden("ONE_MORE")
    assert not hasattr(settings, "ONE_MORE")
    assert settings.MIDDLEWARE


def test_a_subclass_of_a_projects_own_is_left_as_it_is(django):
    import leansite
    from django.middleware.common import CommonMiddleware
    from django.utils.module_loading import import_string
    from pergola_runtime import middleware

    assert middleware.in_place(import_string)("leansite.Mixed") is leansite.Mixed
    assert middleware.in_place(import_string)("leansite.OwnCommon") is leansite.OwnCommon
    ours = middleware.in_place(import_string)("django.middleware.common.CommonMiddleware")
    assert ours.__mro__[:3] == (ours, middleware.InPlace, CommonMiddleware)


def test_middleware_of_djangos_with_a_hook_of_another_is_left_as_it_is(django, monkeypatch):
    """A package that puts a hook of its own there may reach the database in it."""
    from django.contrib.sessions.middleware import SessionMiddleware
    from pergola_runtime import middleware

    assert middleware.placed(SessionMiddleware) is not SessionMiddleware
    monkeypatch.setattr(SessionMiddleware, "process_request", lambda self, request: None)
    assert middleware.placed(SessionMiddleware) is SessionMiddleware


def test_an_agents_import_string_wraps_the_class_that_is_called_in_place(django):
    """Its class has the names of Django's, by which ours would otherwise wrap the agent's."""
    from django.middleware.csrf import CsrfViewMiddleware
    from django.utils import module_loading
    from pergola_runtime import middleware

    def wrapping(path):
        found.append(module_loading.import_string(path))
        return type(found[0].__name__, (), {"__module__": found[0].__module__})

    found = []
    path = "django.middleware.csrf.CsrfViewMiddleware"
    assert not issubclass(middleware.in_place(wrapping)(path), CsrfViewMiddleware)
    assert found[0].__mro__[:3] == (found[0], middleware.Csrf, middleware.InPlace)
    assert module_loading.import_string(path) is CsrfViewMiddleware


def test_asgirefs_way_to_a_thread_is_recognised_where_it_is_not_patched(monkeypatch):
    from pergola_runtime import threads

    assert not threads.sync_to_async_is_patched()
    monkeypatch.setattr(SyncToAsync, "thread_handler", lambda *given: None)
    assert threads.sync_to_async_is_patched()


def test_middleware_is_loaded_by_a_name_that_loads_nothing_else(django):
    from django.conf import settings
    from django.core.handlers import base
    from django.utils.module_loading import import_string
    from leansite import DEFAULT_MIDDLEWARE
    from pergola_runtime.lean import LeanHandler

    source = inspect.getsource(base)
    assert source.count("import_string") == 2  # where it is imported, and
    assert "middleware = import_string(middleware_path)" in source
    LeanHandler()
    assert base.import_string is import_string
    assert settings.MIDDLEWARE == DEFAULT_MIDDLEWARE


def test_what_knows_a_request_says_where(django):
    from django.contrib.messages.storage import base, cookie, fallback, session
    from django.http import HttpRequest
    from django.utils.functional import SimpleLazyObject

    request = HttpRequest()
    request.session = {}
    storage = fallback.FallbackStorage(request)
    for one in (storage, *storage.storages):
        assert one.request is request
        assert [name for name, value in vars(one).items() if value is request] == ["request"]
    for kind in (cookie.CookieStorage, fallback.FallbackStorage, session.SessionStorage):
        assert kind.update is base.BaseStorage.update
    assert vars(SimpleLazyObject(list))["_setupfunc"] is list


def test_a_response_closes_its_request_and_says_its_handler(django):
    from django.http import HttpResponse
    from django.http.response import HttpResponseBase

    response = HttpResponse()
    assert response._resource_closers == []
    assert "_handler_class" in inspect.getsource(HttpResponseBase.close)


def test_a_request_has_its_body_and_its_files_under_these_names(django):
    import tempfile

    from django.core.handlers.asgi import ASGIRequest

    with tempfile.SpooledTemporaryFile(max_size=1) as body:
        assert body._rolled is False
        body.write(b"xx")
        assert body._rolled is True
        request = ASGIRequest({"type": "http", "method": "POST", "path": "/", "headers": []}, body)
        assert request._stream is body
        assert not hasattr(request, "_files")
        assert not request.FILES
        assert hasattr(request, "_files")


def test_the_event_loop_takes_a_future_of_its_own_from_an_executor():
    class Own(Executor):
        def submit(self, function, /, *args):
            future = asyncio.get_running_loop().create_future()
            future.set_result(function(*args))
            return future

    async def go():
        return await asyncio.get_running_loop().run_in_executor(Own(), str, 5)

    assert asyncio.run(go()) == "5"
    uvloop = pytest.importorskip("uvloop")
    assert uvloop.run(go()) == "5"


def test_asgiref_keeps_a_contexts_executor_where_ours_puts_it_back():
    from pergola_runtime.lean import RequestContext

    class Own(Executor):
        def submit(self, function, /, *args):
            future = asyncio.get_running_loop().create_future()
            future.set_result("own")
            return future

    async def go(context):
        async def later():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return await sync_to_async(str)()

        async with context:
            task = asyncio.create_task(later())
        return await task

    assert asyncio.run(go(RequestContext(executor=Own()))) == "own"
    with pytest.raises(RuntimeError, match="has exited"):
        asyncio.run(go(ThreadSensitiveContext(executor=Own())))
    assert not SyncToAsync.thread_sensitive_context.get(None)


def test_async_to_sync_waits_in_what_asgiref_names_for_it(monkeypatch):
    """And from within, the name of that is known: by it the handler knows that synchronous code asks it."""

    class Noting(CurrentThreadExecutor):
        def run_until_future(self, future):
            noted.append("waits")
            super().run_until_future(future)
            noted.append("goes on")

        def submit(self, *args):
            noted.append("is given work")
            return super().submit(*args)

    async def within():
        current = AsyncToSync.executors.current
        return isinstance(current, Noting) and await sync_to_async(str)("done")

    async def go():
        assert getattr(AsyncToSync.executors, "current", None) is None
        return await sync_to_async(async_to_sync(within))()

    noted = []
    monkeypatch.setattr(sync, "CurrentThreadExecutor", Noting)
    assert asyncio.run(go()) == "done"
    assert set(noted[:2]) == {"waits", "is given work"}  # the event loop may be first
    assert noted[2:] == ["goes on"]


def test_a_connection_has_what_is_asked_of_it(django):
    from django.db import connection

    connection.ensure_connection()
    for name in ("close_at", "errors_occurred", "queries_log", "in_atomic_block", "closed_in_transaction"):
        assert hasattr(connection, name), name
    assert connection.health_check_done in (True, False)
    assert connection.autocommit is True
    assert connection.connection.pgconn.transaction_status == 0
    connection.close()
    assert connection.connection is None
    assert callable(connection.close_if_unusable_or_obsolete)


def test_connections_and_caches_in_use_are_listed(django):
    from django.core.cache import caches
    from django.db import connections

    for found in (connections, caches):
        assert found["default"] in [*found.all(initialized_only=True)]
    # the age of connections is set there
    assert connections.settings["default"] is connections["default"].settings_dict


def test_a_connection_is_made_by_these_methods_in_this_order(django, monkeypatch):
    """Ours watch a connection before anything runs on it, and before a project's receivers are called."""
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.signals import connection_created

    def note(name):
        function = getattr(BaseDatabaseWrapper, name)

        def noting(one):
            noted.append((name, one.connection is not None))
            function(one)

        monkeypatch.setattr(BaseDatabaseWrapper, name, noting)

    def created(connection, **_):
        noted.append(("connection_created", connection.connection is not None))

    noted = []
    note("connect")
    note("init_connection_state")
    connection.close()
    connection_created.connect(created)
    try:
        connection.ensure_connection()
    finally:
        connection_created.disconnect(created)
        connection.close()
    assert noted == [("connect", False), ("init_connection_state", True), ("connection_created", True)]


@pytest.fixture
def watched(django, monkeypatch):
    """`watched(**options)` opens Django's connection to PostgreSQL, watched as in a request."""
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper
    from pergola_runtime import sessions

    initialize = BaseDatabaseWrapper.init_connection_state

    def watch_and_initialize(one):
        sessions.watch(one)
        initialize(one)

    def opened(**options):
        monkeypatch.setitem(connection.settings_dict, "PORT", "5432")
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        connection.close()
        connection.ensure_connection()
        return connection

    monkeypatch.setattr(BaseDatabaseWrapper, "init_connection_state", watch_and_initialize)
    yield opened
    connection.close()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul"])
def test_what_django_sends_to_a_new_connection_leaves_it_unaltered(watched, zone):
    from pergola_runtime import sessions

    connection = watched(options=f"-c TimeZone={zone}")
    assert connection.connection.info.parameter_status("TimeZone") == "UTC"
    assert not sessions.altered(connection)


def test_psycopg_exchanges_with_the_server_in_wait(directory):
    class Noting(psycopg.Connection):
        def wait(self, *given, **named):
            noted.append(given)
            return super().wait(*given, **named)

    def exchanges(function, *given):
        noted.clear()
        function(*given)
        assert noted, function

    noted = []
    with Noting.connect(host=str(directory), port=5432, user="test", dbname="postgres") as one:
        cursor = one.cursor()
        exchanges(cursor.execute, "SELECT 1")
        exchanges(cursor.executemany, "SELECT %s", [[1], [2]])
        exchanges(one.commit)
        exchanges(lambda: [*cursor.stream("SELECT 1")])
        exchanges(one.rollback)
        exchanges(one.cursor("named").execute, "SELECT 1")
        with cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
            exchanges(copy.read)
            exchanges(copy.read)
        with one.pipeline():
            exchanges(cursor.execute, "SELECT 1")
        with one.transaction():
            exchanges(one.execute, "SELECT 1")


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_psycopgs_async_transaction_begins_and_ends_by_these_names(directory, ends):
    from pergola_runtime.asyncdb import OF_TRANSACTIONS

    class Noting(psycopg.AsyncConnection):
        async def wait(self, exchange, *given, **named):
            noted.append(exchange.__name__)
            return await super().wait(exchange, *given, **named)

    async def go():
        async with await Noting.connect(
            host=str(directory), port=5432, user="test", dbname="postgres", autocommit=True
        ) as one:
            noted.clear()
            async with one.transaction():
                if ends == "rollback":
                    raise psycopg.Rollback
            return [*noted]

    noted = []
    assert asyncio.run(go()) == [*OF_TRANSACTIONS]


class OwnDumper(StrDumper):
    """For a type's number."""


class OwnDumperOfClass(StrDumper):
    """For a class alone."""

    oid = 0


# what the client alone may change, by the private name that has it
CHANGES = {
    "_notice_handlers": lambda driver: driver.add_notice_handler(print),
    "_notify_handlers": lambda driver: driver.add_notify_handler(print),
    "adapters._dumpers": lambda driver: driver.adapters.register_dumper(set, OwnDumperOfClass),
    "adapters._dumpers_by_oid": lambda driver: driver.adapters.register_dumper(None, OwnDumper),
    "adapters._loaders": lambda driver: driver.adapters.register_loader("float8", TextLoader),
    "adapters.types._registry": lambda driver: TypeInfo("own", 99998, 99999).register(driver),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_psycopg_changes_in_the_client_alone_is_seen(watched, name):
    from operator import attrgetter

    from pergola_runtime import sessions

    connection = watched()
    assert attrgetter(name)(connection.connection) is not None
    assert not sessions.altered(connection)
    CHANGES[name](connection.connection)
    assert sessions.altered(connection)


def test_closing_a_response_does_what_ours_does_in_its_place(django):
    from django.http import response
    from django.http.response import HttpResponseBase
    from pergola_runtime.threads import is_defined_in

    assert is_defined_in(response, HttpResponseBase.close)
    body = inspect.getsource(HttpResponseBase.close).partition("\n")[2]
    assert [
        line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith("#")
    ] == [
        "for closer in self._resource_closers:",
        "try:",
        "closer()",
        "except Exception:",
        "pass",
        "self._resource_closers.clear()",
        "self.closed = True",
        "signals.request_finished.send(sender=self._handler_class)",
    ]


def test_djangos_async_orm_calls_by_a_name_of_its_module(django):
    """And asgiref tells a thread the way back, and a context its executor, under these names."""
    from django.db.models import query
    from pergola_runtime import threads

    for name in threads.NAMES.split():
        method = query.QuerySet.__aiter__ if name == "_fetch_all" else getattr(query.QuerySet, f"a{name}")
        assert f"sync_to_async(self.{name})(" in inspect.getsource(method)
    assert callable(query.sync_to_async)
    called = inspect.getsource(SyncToAsync)
    assert "self.threadlocal.main_event_loop = loop" in called
    assert "self.threadlocal.main_event_loop_pid = os.getpid()" in called
    assert "self.threadlocal.task_context = task_context" in called
    assert "_restore_context(context)" in called
    own = Executor()
    assert ThreadSensitiveContext(executor=own)._executor is own
    assert ThreadSensitiveContext()._executor is None
