"""A disk that is full: the site goes on, or does so by itself when space is free again."""

import contextlib
import re
from dataclasses import dataclass

import pytest
from faults.releases import deploy
from faults.replica import well
from waiting import wait_until

pytestmark = pytest.mark.disruptive

POSTGRESQL = "postgresql@17-main.service"
# pages: without a query, with one, and with a look at everything
PLAIN, QUERY, READY = "/livez", "/lab/sync/row/", "/readyz"


@dataclass
class Disk:
    """A directory on a file system of its own, and the units that write to it."""

    path: str
    units: tuple = ()  # stopped while the file system changes
    moved: str = "true"  # shell that lets what runs take the new file system, after each change
    free: int = 24  # MB, beside what is there
    files: int = 0  # inodes, beside those that are used; 0: no limit
    work: str = "true"  # shell that makes the units write, or start
    pages: tuple = (PLAIN,)  # what answers while the disk is full


PSQL = "runuser -u postgres -- psql -qAtX"
# what PostgreSQL acknowledged, by number, on a disk that has space
ACKNOWLEDGED = "/run/acknowledged"
INSERT = "INSERT INTO written DEFAULT VALUES RETURNING n"
WRITE_ROWS = f"for n in $(seq 10); do {PSQL} -c '{INSERT}' >>{ACKNOWLEDGED}; done;"
FILL = (
    "INSERT INTO filler SELECT string_agg(md5(random()::text), NULL)"
    " FROM generate_series(1, 200000) n GROUP BY n / 50"
)
WRITES = f"{WRITE_ROWS} {PSQL} -c '{FILL}'"
KILL_REDIS = "systemctl kill --signal=KILL redis-server.service; sleep 1.5"
# The directories of the killed unit are removed before it starts again (RestartSec=2), which frees inodes.
KILL_WEB = (
    "systemctl kill --signal=KILL 'app-web@*.service'; sleep 0.5;"
    " for n in $(seq 99); do touch /tmp/filler-again-$n || break; done"
)
DISKS = {
    "database": Disk("/var/lib/postgresql", (POSTGRESQL,), work=WRITES),
    "write-ahead log": Disk("/var/lib/postgresql/17/main/pg_wal", (POSTGRESQL,), work=WRITES),
    "inodes of the database": Disk("/var/lib/postgresql", (POSTGRESQL,), files=30, work=WRITES),
    # it cannot start while its disk is full
    "redis": Disk("/var/lib/redis", ("redis-server.service",), work=KILL_REDIS, pages=(PLAIN, QUERY)),
    "inodes of redis": Disk(
        "/var/lib/redis", ("redis-server.service",), files=30, work=KILL_REDIS, pages=(PLAIN, QUERY)
    ),
    "journal": Disk(
        "/var/log/journal",
        moved="systemctl restart systemd-journald",
        work="logger -f /etc/services",
        pages=(PLAIN, QUERY, READY),
    ),
    "log files": Disk("/var/log/nginx", ("nginx.service",), pages=(PLAIN, QUERY, READY)),
    # each unit has a directory of its own there, from its start on
    "temporary files": Disk("/tmp", moved="appctl restart", pages=(PLAIN, QUERY, READY)),  # noqa: S108 - of the machine
    "inodes of temporary files": Disk(
        "/tmp",  # noqa: S108
        moved="appctl restart",
        files=30,
        work=KILL_WEB,
        pages=(PLAIN, QUERY, READY),
    ),
}
SMALL, ORIGINAL = "/run/small-disk", "/run/original-disk"


@contextlib.contextmanager
def small_disk(replica, disk):
    """The directory on a small tmpfs; afterwards on its own disk again, with what was written meanwhile."""
    units = " ".join(disk.units)
    stop, start = (f"systemctl {verb} {units}" if units else "true" for verb in ("stop", "start"))
    used = int(replica.run(f"du -sm {disk.path} | cut -f1"))
    files = int(replica.run(f"du -s --inodes {disk.path} | cut -f1"))
    limit = f",nr_inodes={files + disk.files}" if disk.files else ""
    try:
        replica.run(
            # (!) private: what is mounted on the directory would be mounted here as well
            f"set -e; mkdir -p {SMALL} {ORIGINAL}; {stop}; mount --bind {disk.path} {ORIGINAL};"
            f" mount --make-private {ORIGINAL};"
            f" mount -t tmpfs -o size={used + disk.free}m{limit} tmpfs {SMALL}; cp -a {disk.path}/. {SMALL}/;"
            f" chown --reference={disk.path} {SMALL}; chmod --reference={disk.path} {SMALL};"
            f" mount --bind {SMALL} {disk.path}; umount {SMALL}; {start}; {disk.moved}"
        )
        yield
    finally:
        replica.run(
            f"{stop}; mountpoint -q {SMALL} && umount {SMALL};"
            # (!) only what is newer: processes have the files of the live release in their memory
            f" if mountpoint -q {disk.path}; then cp -a --update {disk.path}/. {ORIGINAL}/;"
            f" umount {disk.path} || umount --lazy {disk.path}; fi;"
            f" umount {ORIGINAL}; rmdir {SMALL} {ORIGINAL}; {start}; {disk.moved}",
            check=False,
        )


def fill(replica, disk):
    if disk.files:
        replica.run(f"cd {disk.path}; for n in $(seq 9999); do touch filler-$n 2>/dev/null || break; done")
    else:
        replica.run(f"dd if=/dev/zero of={disk.path}/filler bs=64k status=none || true")


def empty(replica, disk):
    replica.run(f"find {disk.path} -maxdepth 1 -name 'filler*' -delete")


WRITE = """
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.utils import timezone

values = {"session_data": "", "expire_date": timezone.now()}
Session.objects.update_or_create(session_key="disk", defaults=values)
cache.set("disk", "written", 9)
print(cache.get("disk"))
"""


def serves(replica):
    """Whether the site answers, and a write to each store succeeds."""
    written = replica.run("app-manage shell --no-imports -v 0", given=WRITE, check=False)
    return written.endswith("written") and replica.get("/readyz").status_code == 200


@pytest.fixture
def lost_rows(replica):
    """Counts the rows that PostgreSQL acknowledged and does not have; 10 were written by then."""
    tables = "DROP TABLE IF EXISTS filler, written;"
    replica.run(
        f"rm -f {ACKNOWLEDGED}; {PSQL} -c '{tables}'"
        f" -c 'CREATE TABLE filler (t text)' -c 'CREATE TABLE written (n bigserial)'; {WRITE_ROWS}"
    )

    def lost():
        acknowledged = set(replica.run(f"cat {ACKNOWLEDGED}").split())
        kept = set(replica.run(f"{PSQL} -c 'TABLE written'").split())
        assert len(acknowledged) >= 10
        print(f"rows acknowledged: {len(acknowledged)}, lost: {len(acknowledged - kept)}")
        return len(acknowledged - kept)

    yield lost
    replica.run(f"rm -f {ACKNOWLEDGED}; {PSQL} -c '{tables}'", check=False)


@pytest.mark.parametrize("name", DISKS)
def test_a_full_disk_is_no_lasting_outage(replica, lost_rows, name):
    disk = DISKS[name]
    static = re.search(r'href="(/static/[^"]+\.css)"', replica.get("/").text)[1]
    with small_disk(replica, disk):
        wait_until(lambda: serves(replica), "the site on the small disk")
        cursor = replica.run("journalctl --lines=0 --show-cursor --quiet | sed -n 's/^-- cursor: //p'")
        fill(replica, disk)
        space, files = replica.run(f"df --output=avail,iavail {disk.path} | tail -n 1").split()
        assert "0" in (space, files)
        for _ in range(8):  # more often than systemd's own limit of starts
            replica.run(disk.work, check=False)
            answers = {path: replica.get(path).status_code for path in (static, *disk.pages)}
            assert answers == dict.fromkeys(answers, 200)
            assert replica.get(READY).status_code in (200, 503)
        if POSTGRESQL in disk.units:  # or it was not asked for more than it had
            journal = f"journalctl --unit={POSTGRESQL} --after-cursor='{cursor}'"
            said = f"{journal} | grep -c 'No space left on device'"
            assert int(replica.run(said)) > 0
        empty(replica, disk)
        wait_until(lambda: serves(replica), "the site when space is free again")
        assert lost_rows() == 0
        assert replica.run("systemctl --failed --legend=no --plain") == ""
    wait_until(lambda: serves(replica), "the site on its own disk")


@pytest.fixture
def small_home(request, replica, left_well):
    """Releases on a disk that has no space for another one, or no inodes."""
    disk = Disk(f"{replica.settings['app_home']}/releases", **getattr(request, "param", {"free": 40}))
    with small_disk(replica, disk):
        yield disk


def what_is_there(replica, disk):
    """Names, and what is free: MB and inodes."""
    return replica.run(f"ls {disk.path}; df --output=avail,iavail --block-size=1M {disk.path} | tail -n 1")


@pytest.mark.parametrize(
    "small_home", [{"free": 40}, {"free": 4000, "files": 1000}], ids=["space", "inodes"], indirect=True
)
def test_a_deploy_that_would_fill_the_disk_is_refused_before_it_builds(replica, small_home, make_source):
    """By its own rule: twice what the live release takes, and 20,000 files."""
    before = what_is_there(replica, small_home)
    live = replica.run(f"du -sm --dereference-args {replica.settings['app_home']}/live | cut -f1")
    done = deploy(replica, make_source("large")).wait()
    assert done.process.returncode != 0
    told = r"has (\d+) MB and (\d+) files free where .* a release needs (\d+) MB and 20000 files"
    space, files, needs = map(int, re.search(told, done.failed).groups())
    assert needs == 2 * int(live)
    assert (space < needs, files < 20000) == (not small_home.files, bool(small_home.files))
    assert what_is_there(replica, small_home) == before
    well(replica)


def test_a_deploy_that_fills_the_disk_leaves_nothing_of_itself(replica, small_home, make_source):
    source = make_source("larger than the disk")
    (source.root / "app/large.bin").write_bytes(bytes(80 * 2**20))
    before = what_is_there(replica, small_home)
    done = deploy(replica, source, "-e", "deploy_free_mb=1").wait()
    assert done.process.returncode != 0
    assert "could not be built" in done.failed
    assert what_is_there(replica, small_home) == before
    well(replica)
