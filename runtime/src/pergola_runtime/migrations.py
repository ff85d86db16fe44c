"""Migrates the database under a release that serves: `python -m pergola_runtime.migrations apply`

    check   says which unapplied migrations would break the running release or hold up its requests
    apply   refuses those, and applies the rest: under a lock that one deploy holds at a time, giving up a
            table's lock after a moment and trying again, within a time limit
    uses    prints the tables and columns of this release's models, for another one's check

Run it in the new release's environment with DJANGO_SETTINGS_MODULE set, straight to PostgreSQL: a pooler
keeps no session, and the lock is one.
"""

import argparse
import contextlib
import getpass
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connections
from django.db.backends.signals import connection_created
from django.db.migrations.executor import MigrationExecutor

LOCK = (0x50657267, 0x6F6C61)  # two numbers that no application takes by chance
RETRIED = {"55P03": "a table was locked", "40P01": "a deadlock"}
CONCURRENT_INDEX = re.compile(
    r'CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"?(\w+)"?', re.IGNORECASE
)
HOLDER = """
    SELECT a.application_name, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
UNFINISHED = """
    SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = %s AND pg_table_is_visible(c.oid) AND NOT i.indisvalid
"""
LONGEST = """
    SELECT pid, application_name, state, extract(epoch FROM now() - xact_start)::int
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    ORDER BY xact_start LIMIT 1
"""


def say(text):
    print(text, flush=True)


def refuse(text):
    sys.exit(f"migrations: {text}")


def one(connection, sql, *params):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()


def unapplied(connection):
    executor = MigrationExecutor(connection)
    return executor, executor.migration_plan(executor.loader.graph.leaf_nodes())


def used_by_running(python, directory):
    """What the running release says that it uses: {table: {column: ...}}, or None."""
    command = [python, "-m", "pergola_runtime.migrations", "uses"]
    asked = {"cwd": directory, "capture_output": True, "text": True, "timeout": 60, "check": True}
    try:
        # the last line: an application may have words of its own
        return json.loads("".join(subprocess.run(command, **asked).stdout.splitlines()[-1:]))  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = type(error).__name__
        say(f"the running release does not say what it uses ({reason}): what was migrated counts")


def lint(connection, options):
    """Prints the refusals; whether the migrations may be applied."""
    from pergola_runtime.linter import LinterError, refusals

    executor, plan = unapplied(connection)
    if not plan:
        return True
    used = used_by_running(*options.running) if options.running else None
    allow_unsafe = options.allow_unsafe
    try:
        refused = list(refusals(connection, executor, plan, options.big_table * 2**20, used))
    except LinterError as error:
        refuse(error)
    for refusal in refused:
        say(f"{'allowed' if allow_unsafe else 'refused'}: {refusal}")
    return allow_unsafe or not refused


@contextlib.contextmanager
def only_one(connection, name):
    """Holds the lock on a connection of its own, which no migration can close."""
    lock = connection.copy()
    try:
        lock.ensure_connection()
    except OperationalError as error:
        refuse(f"the database does not answer: {str(error).strip()}")
    try:
        if one(lock, "SELECT pg_backend_pid()") != (lock.connection.info.backend_pid,):
            refuse(
                "the database is reached through a pooler, which keeps no lock; on a server: app-run --direct"
            )
        one(lock, "SELECT set_config('application_name', %s, false)", f"migrating: {name}"[:63])
        if not one(lock, "SELECT pg_try_advisory_lock(%s, %s)", *LOCK)[0]:
            holder = one(lock, HOLDER, *LOCK)
            refuse(
                "another deploy is {}, since {} UTC; wait for it".format(*holder or ("just ending", "now"))
            )
        yield
    finally:
        lock.close()


def prepare(connection, lock_timeout):
    """What each session of this process gets, also one that is opened anew."""

    def configure(sender, connection, **kwargs):
        if connection.vendor != "postgresql":
            return
        one(connection, "SELECT set_config('lock_timeout', %s, false)", f"{lock_timeout}s")
        # the time limit is ours; one that the role brings is meant for requests
        one(connection, "SELECT set_config('statement_timeout', '0', false)")
        # a statement whose client was killed ends too, or it would hold its locks until it is done
        one(connection, "SELECT set_config('client_connection_check_interval', '1s', false)")

    connection_created.connect(configure, weak=False)
    connection.close()

    def concurrently(execute, sql, params, many, context):
        """An index that is built beside the requests waits for them without being in anybody's way, and when
        the wait is cut off it stays behind, invalid: so it may wait, and what stayed behind goes first."""
        if "CONCURRENTLY" not in str(sql).upper():
            return execute(sql, params, many, context)
        index = CONCURRENT_INDEX.search(str(sql))
        if index and one(connection, UNFINISHED, index[1]) is not None:
            say(f"dropping {index[1]}, which an earlier attempt left unfinished")
            with connection.cursor() as cursor:
                cursor.execute(f"DROP INDEX CONCURRENTLY {connection.ops.quote_name(index[1])}")
        one(connection, "SELECT set_config('lock_timeout', '0', false)")
        done = execute(sql, params, many, context)
        one(connection, "SELECT set_config('lock_timeout', %s, false)", f"{lock_timeout}s")
        return done

    return connection.execute_wrapper(concurrently)


def longest_transaction(connection):
    found = one(connection, LONGEST)
    return "the longest transaction: pid {}, {}, {}, {} s".format(*found) if found else "nobody holds one now"


def migrate(connection, attempts):
    """Each migration is a transaction, so that a further attempt goes on where the last one stopped."""
    for attempt in range(1, attempts + 1):
        try:
            call_command("migrate", database=connection.alias, interactive=False, verbosity=1)
            return
        except OperationalError as error:
            cause = error.__cause__  # of psycopg 3 or 2
            reason = RETRIED.get(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None))
            if reason is None:
                raise
            connection.close()
            say(f"\nattempt {attempt} of {attempts}: {reason}; {longest_transaction(connection)}")
            if attempt == attempts:
                refuse(
                    f"gave up after {attempts} attempts ({str(error).strip()}); the running release goes on"
                )
            wait = min(2**attempt, 30)
            time.sleep(random.uniform(wait / 2, wait))  # noqa: S311  no secret: deploys must not meet again


def limited(seconds):
    """Ends the process, whatever it does; PostgreSQL undoes what was under way."""

    def end():
        undone = "what was under way is undone, the running release goes on"
        say(f"\nmigrations: not done within {seconds:g} s; {undone}")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def arguments():
    parser = argparse.ArgumentParser(
        prog="python -m pergola_runtime.migrations", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("command", choices=["check", "apply", "uses"])
    add = parser.add_argument
    add("--database", default="default", help="the alias in DATABASES (%(default)s)")
    add(
        "--running",
        nargs=2,
        metavar=("PYTHON", "DIRECTORY"),
        help="the release that runs: its Python, and where its manage.py is",
    )
    add("--allow-unsafe", action="store_true", help="say what is unsafe, and do it all the same")
    add(
        "--big-table",
        type=float,
        default=64,
        metavar="MB",
        help="locks are felt from here on (%(default)s)",
    )
    add(
        "--lock-timeout",
        type=float,
        default=2,
        metavar="S",
        help="how long requests may wait for us (%(default)s)",
    )
    add("--attempts", type=int, default=10, help="at a lock that is not to be had (%(default)s)")
    add("--time-limit", type=float, default=900, metavar="S", help="for all of it (%(default)s)")
    add("--name", help="who others are told holds the lock (user@host)")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        django.setup()
    except ImproperlyConfigured as error:
        refuse(error)
    if options.command == "uses":
        from pergola_runtime.linter import used_by

        print(json.dumps(used_by(django.apps.apps)))
        return
    connection = connections[options.database]
    if connection.vendor != "postgresql":
        if connection.vendor == "unknown":  # an application without a database
            say("there is no database to migrate")
        elif options.command == "apply":
            say(f"{connection.vendor}: no linter, no lock")
            call_command("migrate", database=options.database, interactive=False)
        return
    limited(options.time_limit)
    if options.command == "check":
        sys.exit(0 if lint(connection, options) else 1)
    name = options.name or f"{getpass.getuser()}@{socket.gethostname()} {os.getpid()}"
    with only_one(connection, name), prepare(connection, options.lock_timeout):
        if not lint(connection, options):
            refuse("refused; nothing was changed. To insist: --allow-unsafe")
        migrate(connection, options.attempts)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("migrations: told to stop"))
    main()
