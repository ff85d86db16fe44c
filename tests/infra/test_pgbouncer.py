import re
import ssl
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from infra.tools import MORE_THAN_SYSTEMD_STARTS, changed, inventory_of, main_process, play
from waiting import wait_until

pytestmark = pytest.mark.hosts("web")
EVIDENCE = ["pgbouncer*", "postgresql@*"]


def serving(host):
    """The instance that accepts clients: its unit."""
    units = host.check_output("systemctl list-units --plain --legend=no --state=active 'pgbouncer@*.service'")
    (line,) = units.splitlines()
    return line.split()[0]


def test_it_runs_as_a_user_of_its_own(host):
    """As postgres, which Debian takes, it would be a superuser of the database."""
    process = main_process(host, serving(host))
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


# Until the standard input ends: clients that connect for each query, clients that keep their connection for 5
# s, and one that is idle all the time. Every one of their queries must succeed.
STEADY = """
import json, os, sys, threading, time
import psycopg

ended = threading.Event()
done, failed = [], []

def connect():
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

def client(seconds):
    while not ended.is_set():
        end = time.monotonic() + seconds
        try:
            with connect() as connection:
                while True:
                    done.append(connection.execute("SELECT 1").fetchone())
                    if ended.is_set() or time.monotonic() > end:
                        break
                    time.sleep(0.01)
        except psycopg.Error as error:
            failed.append(str(error))

idle = connect()
idle.execute("SELECT 1")
threads = [threading.Thread(target=client, args=[seconds]) for seconds in 4 * [0] + 4 * [5]]
for thread in threads:
    thread.start()
restarts = sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
try:
    idle.execute("SELECT 1")
except psycopg.Error as error:
    failed.append(f"the idle client: {error}")
print(json.dumps({"done": len(done), "failed": failed, "restarts": [float(word) for word in
restarts.split()]}))
"""
# prints the seconds that each took
RESTARTS = """for turn in 1 2; do
    sleep 1
    began=$(date +%s.%N)
    systemctl restart pgbouncer.service
    echo "$(date +%s.%N) $began" | awk '{print $1 - $2}'
done; sleep 1"""


@pytest.mark.disruptive
def test_a_restart_loses_no_query_and_waits_for_no_idle_client(probe, host):
    before = main_process(host, serving(host))
    found = probe(STEADY, before=RESTARTS)
    print(f"queries: {found['done']}, lost: {len(found['failed'])}, restarts: {found['restarts']} s")
    assert main_process(host, serving(host)) not in (0, before)
    assert found["failed"] == []
    assert found["done"] > 100
    assert max(found["restarts"]) < 10  # one takes less than a second


@pytest.mark.disruptive
def test_a_restart_that_fails_leaves_the_instance_that_serves(probe, host):
    before = serving(host)
    configuration = "/etc/pgbouncer/pgbouncer.ini"
    with changed(host, configuration, f"sed -i 's/^pool_mode.*/pool_mode = nonsense/' {configuration}"):
        assert host.run("systemctl restart pgbouncer.service").rc != 0
        assert serving(host) == before
        assert probe(ONE) == [1]
    host.check_output("systemctl restart pgbouncer.service")
    assert probe(ONE) == [1]


@pytest.mark.disruptive
def test_a_restart_of_postgresql_loses_no_query(probe, host):
    """PgBouncer holds its clients back meanwhile, and lets them go on."""
    unit = "postgresql@17-main.service"
    before = main_process(host, unit)
    found = probe(STEADY, before="sleep 1; systemctl start postgresql-restart.service; sleep 1")
    print(f"queries: {found['done']}, lost: {len(found['failed'])}")
    assert main_process(host, unit) not in (0, before)
    assert found["failed"] == []
    assert found["done"] > 100


# connected until the standard input ends, which it prints
CONNECTED = """
import json, os, pathlib, sys
import psycopg
one = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
one.execute("SELECT 1")
sign = pathlib.Path(os.environ["STATE_DIRECTORY"], "test-connected")
sign.touch()
print(json.dumps(sys.stdin.read().split()))
sign.unlink()
"""


@pytest.mark.disruptive
def test_an_instance_that_drains_delays_no_start_of_the_application(probe):
    """It may drain for half an hour."""
    restarts = (
        "until [ -e /var/lib/app/test-connected ]; do sleep 0.1; done; systemctl restart pgbouncer.service;"
        " timeout 60 systemctl restart app-beat.service; systemctl is-active app-beat.service;"
        " systemctl list-units --plain --legend=no --state=deactivating 'pgbouncer@*' | wc -l"
    )
    assert probe(CONNECTED, before=restarts) == ["active", "1"]


ONE = """
import json, os
import psycopg

print(json.dumps(psycopg.connect(os.environ["DATABASE_URL"]).execute("SELECT 1").fetchone()))
"""


@pytest.mark.disruptive
def test_killed_it_comes_back(host, probe):
    for _ in range(MORE_THAN_SYSTEMD_STARTS):
        unit = serving(host)
        before = main_process(host, unit)
        host.check_output("kill -KILL %s", str(before))
        assert probe(ONE) == [1]
        wait_until(lambda: main_process(host, unit) not in (0, before), f"{unit} to start again")  # noqa: B023


# What one client does to its session, and how another one would notice.
LEFT = """
import json, os
import psycopg

def connect():
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

DONE = {
    "SET application.mark = 'left'": "SELECT current_setting('application.mark', true)",
    "SELECT set_config('application.other', 'left', false)":
        "SELECT current_setting('application.other', true)",
    "SET search_path = elsewhere": "SELECT 'set' WHERE current_setting('search_path') = 'elsewhere'",
    "SET statement_timeout = '7s'": "SELECT 'set' WHERE current_setting('statement_timeout') = '7s'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY":
        "SELECT 'set' WHERE current_setting('transaction_read_only') = 'on'",
    "CREATE TEMPORARY TABLE left_there ()": "SELECT to_regclass('pg_temp.left_there')::text",
    "SELECT pg_advisory_lock(4711)":
        "SELECT 'held' FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
    "LISTEN left_there": "SELECT pg_listening_channels()",
    "DECLARE left_there CURSOR WITH HOLD FOR SELECT 1": "SELECT name FROM pg_cursors",
    "PREPARE left_there AS SELECT 1": "SELECT name FROM pg_prepared_statements WHERE from_sql",
}
seen = {}
for statement, question in DONE.items():
    with connect() as one:
        one.execute(statement)
        others = [connect() for _ in range(30)]
        rows = [row for other in others for row in other.execute(question).fetchall()]
        seen[statement] = sorted({str(row[0]) for row in rows if row[0]})
        for other in others:
            other.close()
print(json.dumps(seen))
"""


def test_what_a_client_does_to_its_session_reaches_no_other(probe):
    assert {statement: found for statement, found in probe(LEFT).items() if found} == {}


# Two settings of one session in two transactions, and what clients after it find.
SESSION = """
import json, os
from concurrent.futures import ThreadPoolExecutor
import psycopg

def client(number):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as one:
        before = one.execute("SELECT current_setting('application.mark', true)").fetchone()[0] or None
        one.execute(f"SET application.mark = '{number}'")
        one.execute("SELECT pg_sleep(0.01)")
        return before, one.execute("SELECT current_setting('application.mark')").fetchone()[0]

with ThreadPoolExecutor(40) as pool:
    found = list(pool.map(client, range(200)))
print(json.dumps([found == [(None, str(number)) for number in range(200)], found[:5]]))
"""


@pytest.mark.disruptive
@pytest.mark.full  # two converges
def test_with_session_pooling_a_session_is_one_clients_own(servers, host, probe, settings, authority):
    """More clients than connections wait in turn; the site answers, also after a restart of PgBouncer."""

    def converge(mode):
        tags = ["--tags", "pgbouncer,app", "-e", f"pgbouncer_pool_mode={mode}"]
        done = play(inventory_of(servers), "site", arguments=tags)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(number):
        return httpx.get(f"{settings['site_url']}/", verify=context, timeout=60).status_code

    context = ssl.create_default_context(cafile=authority)
    try:
        converge("session")
        right, some = probe(SESSION)
        assert right, some
        for _ in range(2):
            with ThreadPoolExecutor(40) as pool:
                assert set(pool.map(ask, range(200))) == {200}
            host.check_output("systemctl restart pgbouncer")
    finally:
        converge("transaction")
    assert not any(probe(LEFT).values())


# So many clients with one query each, which lasts until it is cancelled.
SLEEP = """
import json, os
from concurrent.futures import ThreadPoolExecutor
import psycopg

def client(number):
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as one:
            one.execute("SELECT pg_sleep(120)")
    except psycopg.errors.QueryCanceled:
        return True
    return False

with ThreadPoolExecutor(CLIENTS) as pool:
    print(json.dumps(all(pool.map(client, range(CLIENTS)))))
"""
# what PostgreSQL says of each of these queries
ASLEEP = """
import json, os
import psycopg

with psycopg.connect(os.environ["DATABASE_DIRECT_URL"], autocommit=True) as one:
    found = one.execute(f"SELECT {WHAT} FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(120)'"
                        " AND state = 'active'").fetchall()
print(json.dumps(len(found)))
"""


@pytest.mark.disruptive
def test_queries_that_wait_delay_no_page_that_has_none(probe, settings, authority):
    """All server connections are taken, and as many requests wait for one: the health path says so."""
    size = settings["pgbouncer_pool_size"]
    with (
        httpx.Client(
            base_url=settings["site_url"], verify=ssl.create_default_context(cafile=authority), timeout=60
        ) as client,
        ThreadPoolExecutor(2 * size) as pool,
    ):
        asleep = pool.submit(probe, f"CLIENTS = {size}\n" + SLEEP)
        try:
            wait_until(lambda: probe("WHAT = 'pid'\n" + ASLEEP) == size, "the pool to be exhausted")
            waiting = [pool.submit(client.get, "/lab/sync/row/") for _ in range(size)]
            ready = client.get("/readyz")
            answers = [client.get(path) for path in 10 * ["/livez", "/lab/sync/"]]
            assert not any(one.done() for one in waiting)
        finally:
            probe("WHAT = 'pg_cancel_backend(pid)'\n" + ASLEEP)
        assert asleep.result()
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "timeout")
        assert {answer.status_code for answer in answers} == {200}
        # they take milliseconds; one that waited for the pool would have seen the end of it
        assert max(answer.elapsed.total_seconds() for answer in answers) < 2
        assert [one.result().status_code for one in waiting] == [200] * size
        wait_until(lambda: client.get("/readyz").status_code == 200, "the site to be ready again")
