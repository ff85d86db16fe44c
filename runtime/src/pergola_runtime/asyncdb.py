"""PostgreSQL without a thread, for the few queries where it counts: psycopg's own async pool.

    from pergola_runtime.asyncdb import connection

    async with connection() as database:
        row = await (await database.execute("SELECT ... WHERE id = %s", [number])).fetchone()

One pool for each event loop, made from DATABASES["default"] at the first use and closed with the loop. A
connection commits by itself, as Django's does; `async with database.transaction():` is a transaction. It is
not the ORM's, whose open transaction it does not see. A connection whose session was altered (sessions.py), by
SET for instance, is closed and not used again. Wants psycopg_pool (the runtime's extra `asyncdb`).
"""

import asyncio
import weakref
from contextlib import asynccontextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.errors import FeatureNotSupported
from psycopg_pool import AsyncConnectionPool

from pergola_runtime import sessions, threads

pools = weakref.WeakKeyDictionary()


class Connection(AsyncConnection):
    altered = False  # whether its session may differ from what it was after the login

    def cursor(self, name="", **named):
        self.altered = self.altered or bool(name)  # it may be one WITH HOLD
        return super().cursor(name, **named)


class Cursor(AsyncCursor):
    """Asks again, unprepared, where a migration changed a column's type under a prepared statement."""

    async def execute(self, query, params=None, *, prepare=None, binary=None):
        if not sessions.leaves_nothing(query):
            self.connection.altered = True
        try:
            return await super().execute(query, params, prepare=prepare, binary=binary)
        except FeatureNotSupported:
            if prepare is False or self.connection.info.transaction_status != threads.IDLE:
                raise
            return await super().execute(query, params, prepare=False, binary=binary)

    async def executemany(self, query, *given, **named):
        if not sessions.leaves_nothing(query):
            self.connection.altered = True
        return await super().executemany(query, *given, **named)

    def copy(self, *given, **named):
        self.connection.altered = True
        return super().copy(*given, **named)


@asynccontextmanager
async def connection():
    loop = asyncio.get_running_loop()
    if loop not in pools:
        pool = make_pool()
        pools[loop] = pool, until_the_loop_ends(pool)
        await anext(pools[loop][1])
    pool, _ = pools[loop]
    if pool.closed:
        await pool.open()  # or waits for who opens it
    async with pool.connection() as one:
        yield one


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
    return AsyncConnectionPool(
        connection_class=Connection,
        kwargs=parameters | {"autocommit": True, "cursor_factory": Cursor},
        min_size=0,
        max_size=threads.limit(),
        # PgBouncer, told to stop, waits until its clients have gone
        max_idle=threads.MAX_AGE,
        max_lifetime=threads.MAX_AGE,
        check=alive,
        reset=unaltered,
        open=False,
    )


async def unaltered(one):
    """What one request told its session is not there for the next: its connection is not used again."""
    if one.altered:
        await one.close()


async def alive(one):
    if threads.readable(one.fileno()):
        await one.close()  # or the pool offers it again
        raise OperationalError("the server has closed the connection")


async def until_the_loop_ends(pool):
    """The server closes what is left of its async generators before its loop ends."""
    await pool.open()
    try:
        yield
    finally:
        pools.pop(asyncio.get_running_loop(), None)
        await pool.close()
