"""A PostgreSQL of the tests' own, by Debian's programs: on a unix socket."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import debian
import psycopg
import pytest
from app.servers import PATIENCE
from waiting import wait_until

# the package's own list for the clusters that it makes; what is there is somebody's
CLUSTERS = Path("/etc/postgresql-common/createcluster.conf")


def programs():
    """The newest version's directory."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def install(lock):
    """Debian's package where there is none and it may be: its programs, no cluster, nothing that runs."""
    with lock.open("w") as waiting:  # several processes run these tests
        fcntl.flock(waiting, fcntl.LOCK_EX)
        if programs():
            return
        if not debian.may_install():
            pytest.skip("needs PostgreSQL's server programs: apt-get install postgresql")
        if not CLUSTERS.exists():
            CLUSTERS.parent.mkdir(exist_ok=True)
            CLUSTERS.write_text("create_main_cluster = false\n")
        debian.install("postgresql")


@contextlib.contextmanager
def running():
    binaries = programs()
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # a socket's path is short
    somebody = {}
    if os.geteuid() == 0:  # whom PostgreSQL does not run for
        somebody = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(directory, "postgres", "postgres")
    data = directory / "data"
    command = [
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "test",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--no-locale",
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=directory, **somebody)
    settings = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off"}
    command = [binaries / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
    log = (directory / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, **somebody)
    try:
        wait_until(lambda: answers(directory), f"PostgreSQL; its log:\n{(directory / 'log').read_text()}")
        yield str(directory)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()
        shutil.rmtree(directory)


def answers(directory):
    try:
        connect(directory).close()
    except psycopg.OperationalError:
        return False
    return True


def connect(directory, database="postgres"):
    return psycopg.connect(host=directory, user="test", dbname=database, autocommit=True)
