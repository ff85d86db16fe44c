import pytest
from infra.tools import run_probe

EVIDENCE = ["redis-server"]

# What the application's own login may do, and what no login may.
TRY = """
import json, os
from urllib.parse import urlsplit
import redis

def outcome(client, *command):
    try:
        return str(client.execute_command(*command))
    except redis.RedisError as error:
        return f"{type(error).__name__}: {error}"

ours = redis.Redis.from_url(os.environ["REDIS_URL"])
place = urlsplit(os.environ["REDIS_URL"])
stranger = redis.Redis(host=place.hostname, port=place.port)
wrong = redis.Redis(host=place.hostname, port=place.port, username="app", password="wrong")
print(json.dumps({
    "ping": outcome(ours, "PING"),
    "ours": {command: outcome(ours, *command.split()) for command in FORBIDDEN},
    "stranger": outcome(stranger, "PING"),
    "wrong": outcome(wrong, "PING"),
}))
"""
FORBIDDEN = [
    "CONFIG GET dir",
    "CONFIG SET dir /tmp",
    "FLUSHALL",
    "ACL LIST",
    "SHUTDOWN NOSAVE",
    "CLIENT LIST",
    "MODULE LIST",
    "REPLICAOF 198.51.100.1 6379",
    "SAVE",
    "MONITOR",
]


@pytest.fixture(scope="module")
def tried(host, settings):
    return run_probe(host, settings, f"FORBIDDEN = {FORBIDDEN!r}\n" + TRY)


@pytest.mark.hosts("web")
def test_the_application_gets_in(tried):
    assert tried["ping"] == "True"


@pytest.mark.hosts("web")
def test_without_the_password_nobody_gets_in(tried):
    """The default user, whom Redis lets in without one, is off."""
    assert tried["stranger"].startswith("AuthenticationError")
    assert tried["wrong"].startswith("AuthenticationError")


@pytest.mark.hosts("web")
@pytest.mark.parametrize("command", FORBIDDEN)
def test_the_application_cannot_run(tried, command):
    """With CONFIG or REPLICAOF, whoever holds the application's password would write files on the host."""
    assert tried["ours"][command].startswith("NoPermissionError"), tried["ours"][command]


KEEP = """
import json, os, redis
with redis.Redis.from_url(os.environ["REDIS_URL"]).pipeline(transaction=True) as together:
    together.set("test-transaction", "kept")
    together.expire("test-transaction", 300)
    together.execute()
print(json.dumps("written"))
"""
KEPT = """
import json, os, redis
print(json.dumps((redis.Redis.from_url(os.environ["REDIS_URL"]).getdel("test-transaction") or b"").decode()))
"""


@pytest.mark.disruptive
@pytest.mark.hosts("web")
def test_what_a_transaction_wrote_outlives_a_restart(probe, host):
    """Celery's queue is written by transactions."""
    assert probe(KEEP) == "written"
    host.check_output("systemctl restart redis-server.service")
    assert probe(KEPT) == "kept"


@pytest.mark.hosts("redis")
def test_what_it_keeps_is_on_disk(host):
    """Jobs must survive its restart: the append-only file is written."""
    assert host.run("test -s /var/lib/redis/appendonlydir/appendonly.aof.manifest").rc == 0
