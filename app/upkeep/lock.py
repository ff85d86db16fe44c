"""A lock that one process of all hosts holds.

In PostgreSQL an advisory lock of the session, over the alias `direct`. (!) Through PgBouncer it would not
hold: in transaction pooling the session that took it goes on to somebody else after the statement, who then
holds our lock, and keeps it when we end. It goes with its session, so that a killed process leaves none.

If the session is lost in the middle (PostgreSQL restarts), so is the lock while the work goes on: what runs
under it is written so that two at once do no harm, only double work.
"""

import fcntl
import os
import tempfile
from contextlib import contextmanager
from hashlib import sha256

from django.db import connections

SPACE = "pergola upkeep"  # keys of advisory locks are one space for all of a database


def key(name):
    return int.from_bytes(sha256(f"{SPACE} {name}".encode()).digest()[:8], signed=True)


@contextmanager
def held(name):
    """Whether the lock is ours, for the length of the block. Does not wait."""
    connection = connections["direct"]
    with (advisory if connection.vendor == "postgresql" else of_a_file)(connection, name) as ours:
        yield ours


@contextmanager
def advisory(connection, name):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key(name)])
        (ours,) = cursor.fetchone()
    try:
        yield ours
    finally:
        connection.close()  # and the lock goes with it


@contextmanager
def of_a_file(connection, name):
    """SQLite is one host's: a lock beside its file is as good. One in memory is its process's alone."""
    database = str(connection.settings_dict["NAME"])
    if connection.is_in_memory_db():
        database = f"{tempfile.gettempdir()}/pergola-{os.getuid()}-{os.getpid()}"
    file = os.open(f"{database}.{name}.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(file)  # and the lock goes with it
