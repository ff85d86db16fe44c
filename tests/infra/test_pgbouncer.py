import re

import pytest
from infra.tools import MORE_THAN_SYSTEMD_STARTS, main_process

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["pgbouncer", "postgresql@*"]


def test_it_runs_as_a_user_of_its_own(host):
    """As postgres, which Debian takes, it would be a superuser of the database."""
    process = main_process(host, "pgbouncer.service")
    assert host.check_output("stat -c %%U /proc/%s", str(process)) == "pgbouncer"


def test_its_files_hold_no_password(host):
    """Nor a SCRAM key or an MD5 hash, which open the door as well."""
    said = host.check_output("grep -rhEv '^[;#]|^$' /etc/pgbouncer")
    assert re.findall(r"password|SCRAM-SHA-256\$|md5[0-9a-f]{32}", said, re.IGNORECASE) == []


# Far more clients than server connections, all at work, then all idle with their connection open.
LOAD = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
import psycopg

def client(number):
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    backends = {connection.execute("SELECT pg_backend_pid(), pg_sleep(0.05)").fetchone()[0] for _ in range(5)}
    return connection, backends

with ThreadPoolExecutor(CLIENTS) as pool:
    clients = list(pool.map(client, range(CLIENTS)))
with psycopg.connect(os.environ["DATABASE_DIRECT_URL"]) as direct:
    held = direct.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid = ANY(%s)",
        [[pid for _, backends in clients for pid in backends]],
    ).fetchone()[0]
print(json.dumps({
    "backends": len(set().union(*(backends for _, backends in clients))),
    "held": held,
    "shared": max(len(backends) for _, backends in clients),
}))
"""


@pytest.mark.disruptive
def test_many_clients_share_few_connections(probe, settings):
    """A server connection belongs to a client for one transaction, prepared statements included."""
    size = settings["pgbouncer_pool_size"]
    found = probe(f"CLIENTS = {3 * size}\n" + LOAD)
    assert found["backends"] <= size
    assert found["held"] <= size
    assert found["shared"] > 1, "every client kept a connection of its own: that is session pooling"


# Short clients, as Django's are, until the standard input ends; every one of their queries must succeed.
STEADY = """
import json, os, sys, threading
import psycopg

ended = threading.Event()
done, failed = [], []

def client():
    while not ended.is_set():
        try:
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
                done.append(connection.execute("SELECT 1").fetchone())
        except psycopg.Error as error:
            failed.append(str(error))

threads = [threading.Thread(target=client) for _ in range(8)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"done": len(done), "failed": failed}))
"""


@pytest.mark.disruptive
def test_a_restart_loses_no_query(probe, host):
    """Its socket is systemd's: clients wait there while it is away."""
    before = main_process(host, "pgbouncer.service")
    found = probe(
        STEADY, before="for turn in 1 2 3; do sleep 1; systemctl restart pgbouncer.service; done; sleep 1"
    )
    print(f"queries: {found['done']}, lost: {len(found['failed'])}")
    assert main_process(host, "pgbouncer.service") not in (0, before)
    assert found["failed"] == []
    assert found["done"] > 100


ONE = """
import json, os
import psycopg

print(json.dumps(psycopg.connect(os.environ["DATABASE_URL"]).execute("SELECT 1").fetchone()))
"""


@pytest.mark.disruptive
def test_killed_it_comes_back(host, probe):
    for _ in range(MORE_THAN_SYSTEMD_STARTS):
        before = main_process(host, "pgbouncer.service")
        host.check_output("kill -KILL %s", str(before))
        assert probe(ONE) == [1]
        assert main_process(host, "pgbouncer.service") not in (0, before)
