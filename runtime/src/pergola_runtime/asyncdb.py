"""PostgreSQL without a thread, for the few queries where it counts: psycopg's own async pool.

    from pergola_runtime.asyncdb import connection

    async with connection() as database:
        row = await (await database.execute("SELECT ... WHERE id = %s", [number])).fetchone()

One pool for each event loop, made from DATABASES["default"] at the first use and closed with the loop. A
connection commits by itself, as Django's does; `async with database.transaction():` is a transaction. It is
not the ORM's, whose open transaction it does not see. A connection whose session was altered (sessions.py),
by SET for instance, is closed and not used again. Wants psycopg_pool (the runtime's extra `asyncdb`).
"""

import asyncio
import weakref
from contextlib import asynccontextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.errors import FeatureNotSupported
from psycopg_pool import AsyncConnectionPool

from pergola_runtime import choice, database, sessions

pools = weakref.WeakKeyDictionary()


# psycopg's exchanges by which transaction() begins and ends
OF_TRANSACTIONS = ("_enter_gen", "_exit_gen")


class Connection(AsyncConnection):
    """Knows whether its session may differ from what it was after the login (sessions.py)."""

    altered = False

    async def wait(self, exchange, *given, **named):
        if sessions.harmless.get() is not self and exchange.__name__ not in OF_TRANSACTIONS:
            self.altered = True
        return await super().wait(exchange, *given, **named)

    async def leave_nothing(self, function, *given, **named):
        token = sessions.harmless.set(self)
        try:
            return await function(*given, **named)
        finally:
            sessions.harmless.reset(token)

    async def commit(self):
        await self.leave_nothing(super().commit)

    async def rollback(self):
        await self.leave_nothing(super().rollback)


class Cursor(AsyncCursor):
    """Repeats a query without a prepared statement if a migration changed a column's type."""

    async def execute(self, query, params=None, *, prepare=None, binary=None):
        if sessions.leaves_nothing(query):
            return await self.connection.leave_nothing(self.run, query, params, prepare, binary)
        return await self.run(query, params, prepare, binary)

    async def run(self, query, params, prepare, binary):
        try:
            return await super().execute(query, params, prepare=prepare, binary=binary)
        except FeatureNotSupported:
            if prepare is False or self.connection.info.transaction_status != database.IDLE:
                raise
            return await super().execute(query, params, prepare=False, binary=binary)

    async def executemany(self, query, *given, **named):
        if sessions.leaves_nothing(query):
            return await self.connection.leave_nothing(super().executemany, query, *given, **named)
        return await super().executemany(query, *given, **named)


@asynccontextmanager
async def connection():
    loop = asyncio.get_running_loop()
    if loop not in pools:
        pool = make_pool()
        pools[loop] = pool, until_the_loop_ends(pool)
        await anext(pools[loop][1])
    pool, _ = pools[loop]
    if pool.closed:
        await pool.open()  # returns when another task has opened it
    async with pool.connection() as one:
        try:
            yield one
        finally:
            # (!) not the pool's `reset`, for which each connection would go back by way of a task of the pool
            if one.altered or sessions.attributes(one) != one.as_opened:
                await one.close()


def make_pool():
    for option in {"assume_role", "isolation_level"} & connections["default"].settings_dict["OPTIONS"].keys():
        raise ImproperlyConfigured(
            f"DATABASES['default']: asyncdb does not know Django's option {option}: set it for the role in "
            "PostgreSQL (ALTER ROLE), or ask by the ORM"
        )
    parameters = connections["default"].get_connection_params()
    parameters.pop("context", None)  # Django's own, for the ORM
    # psycopg's own number, which Django turns off: PgBouncer keeps prepared statements apart (1.21 on)
    parameters["prepare_threshold"] = parameters.get("prepare_threshold") or 5
    most = choice.limit()
    # A connection older than max_lifetime is closed when it is returned. Of the unused ones the pool closes
    # one each max_idle seconds, the last after (most + 1) * max_idle. Both together are MAX_AGE.
    lifetime = choice.MAX_AGE / 2
    return AsyncConnectionPool(
        connection_class=Connection,
        kwargs=parameters | {"autocommit": True, "cursor_factory": Cursor},
        min_size=0,
        max_size=most,
        max_lifetime=lifetime,
        max_idle=(choice.MAX_AGE - lifetime) / (most + 1),
        configure=opened,
        check=alive,
        open=False,
    )


async def opened(one):
    one.as_opened = sessions.attributes(one)


async def alive(one):
    if database.readable(one.fileno()):
        await one.close()  # or the pool offers it again
        raise OperationalError("the server has closed the connection")


async def until_the_loop_ends(pool):
    """The server closes what is left of its async generators before its loop ends."""
    await pool.open()
    closing = asyncio.create_task(close_when_cancelled(pool))
    try:
        yield
    finally:
        pools.pop(asyncio.get_running_loop(), None)
        await pool.close()
        closing.cancel()


async def close_when_cancelled(pool):
    """asyncio.run() first cancels all tasks.

    (!) A task of the pool that is cancelled while it connects goes on, and would keep the loop from ending.
    """
    try:
        await asyncio.Event().wait()
    finally:
        await pool.close()
