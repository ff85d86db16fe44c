"""The state of Django's database connections, found without asking the server; and their end."""

import contextlib
import ctypes
import select
import struct
import time

from pergola_runtime import sessions

IDLE = 0  # libpq's PQTRANS_IDLE: no transaction

# Not Python's poll(), which releases the interpreter even for a timeout of 0, and waits for it again.
poll = ctypes.PyDLL(None).poll


def obsolete(connection):
    return connection.close_at is not None and time.monotonic() >= connection.close_at


def untouched(connection):
    """Whether closing it between two calls of a request changes nothing for the request."""
    return not (transaction_is_open(connection) or sessions.altered(connection))


def needs_cleaning(connection):
    return (
        connection.errors_occurred
        or connection.queries_log
        or obsolete(connection)
        or sessions.altered(connection)
        or transaction_is_open(connection)
    )


def hung_up(connection):
    """Whether the server has closed it: there is something to read that no query asked for. No round trip."""
    # an error: another database, or closed already, which Django detects itself
    with contextlib.suppress(Exception):
        return readable(connection.connection.fileno())
    return False


def lost(connection):
    """Whether it is of no use any more, between two calls of a request.

    An altered one may have messages to read, of LISTEN.
    """
    if connection.in_atomic_block:
        return False
    return getattr(connection.connection, "closed", False) or (untouched(connection) and hung_up(connection))


def readable(socket):
    return bool(poll(ctypes.create_string_buffer(struct.pack("ihh", socket, select.POLLIN, 0)), 1, 0))


def transaction_is_open(connection):
    if connection.connection is None:
        return False
    if connection.in_atomic_block or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return True
    # begun by SQL, without Django
    driver = getattr(connection.connection, "pgconn", None) or getattr(connection.connection, "info", None)
    return getattr(driver, "transaction_status", IDLE) != IDLE


def close(connection):
    if "pool" in connection.settings_dict.get("OPTIONS", {}) and sessions.altered(connection):
        with contextlib.suppress(Exception):
            connection.connection.close()  # psycopg's pool discards it
    # within a transaction Django's close() keeps the dead connection until the transaction ends
    connection.in_atomic_block = connection.closed_in_transaction = False
    with contextlib.suppress(Exception):
        connection.close()
