"""These tests break what they run on: one local replica, and nothing else."""

import json
import os
import secrets
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from faults import releases
from faults.replica import Replica, many_addresses
from machines.conftest import host_of_machines  # noqa: F401  a fixture
from waiting import wait_until

FIGURES = pytest.StashKey()
# name in the clients' report: what of it is said at the end
KINDS = {
    "requests": ("sent", "lost"),
    "WebSockets": ("opened", "lost"),
    "messages": ("sent", "missing", "doubled"),
    "jobs": ("sent", "lost", "doubled"),
}


class Figures:
    """What is said at the end of the run."""

    def __init__(self):
        self.counts = {kind: Counter() for kind in KINDS}
        self.plays = {"deploy": [], "rollback": []}

    def add(self, load):
        for kind, counts in self.counts.items():
            counts.update(load.counts[kind])
        # a post that is accepted and not there is a lost request as well
        self.counts["requests"]["lost"] += load.counts["posts"].get("missing", 0)


def pytest_configure(config):
    config.stash[FIGURES] = Figures()


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash[FIGURES]
    if not any(figures.counts.values()) and not any(figures.plays.values()):
        return
    terminalreporter.section("releases under load")
    for kind, names in KINDS.items():
        counts = ", ".join(f"{figures.counts[kind][name]:,} {name}" for name in names)
        terminalreporter.write_line(f"{kind}: {counts}")
    for verb, plays in figures.plays.items():
        terminalreporter.write_line(f"{verb}: {releases.median(plays)}")


@pytest.fixture(scope="session")
def figures(pytestconfig):
    return pytestconfig.stash[FIGURES]


@pytest.fixture(scope="session")
def replica(servers):
    providers = [settings.get("machines_provider") for settings in servers.settings.values()]
    if providers != ["nspawn"]:
        pytest.exit(
            f"ENV={servers.name}: these tests break what they run on, and it is not one local replica "
            "(make test-releases brings one of its own up)",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    return Replica(servers)


@pytest.fixture(scope="session")
def left_well(replica):
    """Afterwards this checkout serves again, whatever happened; not on a replica that is then removed."""
    yield
    releases.clear_away()
    if os.environ.get("PERGOLA_REPLICA") and not os.environ.get("KEEP"):
        return

    def unlocked():
        done = releases.deploy_checkout(replica).wait()
        return None if "is locked" in done.said else done

    wait_until(unlocked, "the lock of a play that was cut off to be free").works()


@pytest.fixture(scope="session")
def addresses(replica):
    with many_addresses(replica.settings["ansible_host"]) as own:
        yield own


USERS = 10  # each with one WebSocket in each room
MAKE_USERS = """
import json
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
names, password = json.loads({given!r})
User.objects.filter(username__in=names).delete()
User.objects.bulk_create(User(username=name, password=make_password(password)) for name in names)
"""


@pytest.fixture(scope="module")
def users(replica):
    password = secrets.token_urlsafe(12)
    names = [f"load{number}" for number in range(USERS)]
    replica.shell(MAKE_USERS.format(given=json.dumps([names, password])))
    return [f"{name}:{password}" for name in names]


@pytest.fixture(scope="module")
def make_source(tmp_path_factory):
    """Makes sources of releases, each by a name of its own: the same content is the same release."""

    def make(name, broken=None):
        name = f"{name} {time.time_ns() % 10**9:x}"
        source = releases.Source(tmp_path_factory.mktemp("release"), name)
        if broken:
            broken.make(source)
        return source

    return make


@pytest.fixture
def evidence_of(replica):
    """Words about what was lost: when, in which phase of which play, and what the machine said around it."""

    def evidence(load, plays):
        words = [load.said]
        for piece in load.evidence[:5]:
            at = moment(piece["at"])
            going_on = [play.at(at) for play in plays if play.at(at)] or ["between the plays"]
            words += [f"--- {piece}", f"while: {'; '.join(going_on)}", replica.journal(at - 3, at + 2)]
        return "\n".join(words)

    return evidence


def moment(clock):
    """The last time that this clock showed that; the clients write times of the day."""
    now = datetime.now(UTC)
    at = datetime.combine(now.date(), datetime.strptime(clock, "%H:%M:%S.%f").time(), UTC).timestamp()  # noqa: DTZ007
    return at if at <= now.timestamp() + 1 else at - 86400
