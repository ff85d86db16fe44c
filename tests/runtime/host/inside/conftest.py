"""These run on a machine with PostgreSQL's and PgBouncer's programs, in an environment with one Django."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

sys.path[:0] = [str(Path(__file__).parent)]
os.environ["DJANGO_SETTINGS_MODULE"] = "leansite"
POOL = 5

PGBOUNCER = """
[databases]
postgres = host={directory} port=5432 user=test
sessions = host={directory} port=5432 user=test dbname=postgres pool_mode=session
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 2000
max_prepared_statements = 200
server_reset_query = DISCARD ALL
server_reset_query_always = 1
logfile = {directory}/pgbouncer.log
"""


@contextlib.contextmanager
def services():
    """PostgreSQL with PgBouncer before it, as this user, on unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="lean-", dir="/tmp"))  # a socket's path is short
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = [binaries / "initdb", "-D", directory / "data", "-U", "test", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*initdb, "--no-sync", "--no-locale"], check=True, capture_output=True)
    (directory / "pgbouncer.ini").write_text(PGBOUNCER.format(directory=directory, pool=POOL))
    log = (directory / "log").open("w")
    options = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off"}
    processes = [
        subprocess.Popen(
            [binaries / "postgres", "-D", directory / "data", *(f"--{k}={v}" for k, v in options.items())],
            stdout=log,
            stderr=log,
        ),
        subprocess.Popen(
            ["prlimit", "--nofile=4096:", "/usr/sbin/pgbouncer", "-q", directory / "pgbouncer.ini"],
            stdout=log,
            stderr=log,
        ),
    ]
    try:
        for port in (5432, 6432):
            until_it_answers(directory, port)
        yield directory
    finally:
        for process in processes[::-1]:
            process.send_signal(signal.SIGINT)  # at SIGTERM both would wait for their clients
        for process in processes[::-1]:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        log.close()
        shutil.rmtree(directory)


def until_it_answers(directory, port):
    end = time.monotonic() + 30
    while not (answers := answering(directory, port)):
        assert time.monotonic() < end, (directory / "log").read_text()
        time.sleep(0.1)
    return answers


def answering(directory, port):
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(host=str(directory), port=port, user="test", dbname="postgres").close()
        return True
    return False


@pytest.fixture(scope="session")
def directory():
    with services() as found:
        yield found


@pytest.fixture(scope="session")
def django(directory):
    """Django set up on a database with its tables."""
    os.environ |= {"LEAN_HOST": str(directory), "LEAN_PORT": "6432"}
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.db import connections

    connections.close_all()
    return django


@pytest.fixture(scope="session")
def users(django):
    """The users of agentsite.py's sessions."""
    from django.contrib.auth.models import User
    from django.db import connections

    for name in ("user1", "user2"):
        User.objects.get_or_create(username=name)
    connections.close_all()


@pytest.fixture(scope="session")
def server(directory):
    """Asks PostgreSQL itself, past PgBouncer."""
    with psycopg.connect(
        host=str(directory), port=5432, user="test", dbname="postgres", autocommit=True
    ) as one:
        yield one
