"""A disk that is full: the site goes on, or does so by itself when space is free again."""

import contextlib
from dataclasses import dataclass

import pytest
from faults.releases import deploy
from faults.replica import well
from waiting import wait_until

pytestmark = pytest.mark.disruptive

POSTGRESQL = "postgresql@17-main.service"


@dataclass
class Disk:
    """A directory on a file system of its own, and the units that write to it."""

    path: str
    units: tuple = ()  # stopped while the file system changes
    moved: str = "true"  # shell that lets what runs take the new file system, after each change
    free: int = 24  # MB, beside what is there
    files: int = 0  # inodes, beside those that are used; 0: no limit
    work: str = "true"  # shell that makes the units write


WRITES = (
    "runuser -u postgres -- psql -c 'CREATE TABLE IF NOT EXISTS filler (t text)' -c "
    '"INSERT INTO filler SELECT string_agg(md5(random()::text), NULL)'
    ' FROM generate_series(1, 200000) n GROUP BY n / 50"'
)
DISKS = {
    "database": Disk("/var/lib/postgresql", (POSTGRESQL,), work=WRITES),
    "write-ahead log": Disk("/var/lib/postgresql/17/main/pg_wal", (POSTGRESQL,), work=WRITES),
    "inodes of the database": Disk("/var/lib/postgresql", (POSTGRESQL,), files=30, work=WRITES),
    # it cannot start while its disk is full
    "redis": Disk(
        "/var/lib/redis",
        ("redis-server.service",),
        work="systemctl kill --signal=KILL redis-server.service; sleep 1.5",
    ),
    "journal": Disk(
        "/var/log/journal", moved="systemctl restart systemd-journald", work="logger -f /etc/services"
    ),
    "log files": Disk("/var/log/nginx", ("nginx.service",)),
    # each unit has a directory of its own there, from its start on
    "temporary files": Disk("/tmp", moved="app-restart"),  # noqa: S108 - of the machine
}
SMALL, ORIGINAL = "/run/small-disk", "/run/original-disk"


@contextlib.contextmanager
def small_disk(replica, disk):
    """The directory on a small tmpfs; afterwards on its own disk again, with what was written meanwhile."""
    units = " ".join(disk.units)
    stop, start = (f"systemctl {verb} {units}" if units else "true" for verb in ("stop", "start"))
    used = int(replica.run(f"du -sm {disk.path} | cut -f1"))
    files = int(replica.run(f"find {disk.path} | wc -l"))
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
            f" if mountpoint -q {disk.path}; then cp -a {disk.path}/. {ORIGINAL}/;"
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


@pytest.mark.parametrize("name", DISKS)
def test_a_full_disk_is_no_lasting_outage(replica, name):
    disk = DISKS[name]
    with small_disk(replica, disk):
        wait_until(lambda: serves(replica), "the site on the small disk")
        fill(replica, disk)
        space, files = replica.run(f"df --output=avail,iavail {disk.path} | tail -n 1").split()
        assert "0" in (space, files)
        for _ in range(8):  # more often than systemd's own limit of starts
            replica.run(disk.work, check=False)
            replica.get("/readyz")
        if POSTGRESQL in disk.units:  # or it was not asked for more than it had
            said = f"journalctl --unit={POSTGRESQL} --since=-15min | grep -c 'No space left on device'"
            assert int(replica.run(said)) > 0
        empty(replica, disk)
        wait_until(lambda: serves(replica), "the site when space is free again")
        assert replica.run("systemctl --failed --legend=no --plain") == ""
    wait_until(lambda: serves(replica), "the site on its own disk")


def free_space(replica):
    return int(replica.run(f"df --output=avail --block-size=1M {replica.settings['app_home']} | tail -n 1"))


@pytest.fixture
def small_home(replica, left_well):
    """Releases on a disk with so much space that a release does not fit."""
    disk = Disk(f"{replica.settings['app_home']}/releases", free=40)
    with small_disk(replica, disk):
        yield disk


def test_a_deploy_that_would_fill_the_disk_is_refused_before_it_builds(replica, small_home, make_source):
    before = free_space(replica)
    done = deploy(replica, make_source("large"), "-e", "deploy_free_mb=1000000000").wait()
    assert done.process.returncode != 0
    assert "files free where releases and packages go" in done.failed
    assert free_space(replica) >= before - 1
    well(replica)


def test_a_deploy_that_fills_the_disk_leaves_nothing_of_itself(replica, small_home, make_source):
    source = make_source("larger than the disk")
    (source.root / "app/large.bin").write_bytes(bytes(80 * 2**20))
    left = replica.run(f"ls {small_home.path}")
    done = deploy(replica, source, "-e", "deploy_free_mb=1").wait()
    assert done.process.returncode != 0
    assert "could not be built" in done.failed
    assert replica.run(f"ls {small_home.path}") == left
    well(replica)
