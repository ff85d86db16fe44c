"""An update of the system takes effect by itself, and no request fails meanwhile."""

import subprocess
from types import SimpleNamespace

import pytest
from faults.replica import quoted
from infra.tools import run_probe
from load.running import running

pytestmark = pytest.mark.disruptive

SERVICES = ("nginx", "postgresql-17", "pgbouncer", "redis-server")
# a library that all of them use, and the application's Python as well; and one of the system's Python, whose
# programs wait for dpkg meanwhile
LIBRARIES = ("libssl3t64", "libexpat1")
# only a restart of the host renews it (base_reboot_time; docs/security.md)
NOT_RESTARTED = {"dbus.service"}
REPOSITORY = "/var/lib/pergola-updates"
# Debian's own packages with a higher version, and a change in their configuration files, in a repository of
# its own.
REPACK = f"""
import hashlib, pathlib, subprocess
here = pathlib.Path({REPOSITORY!r})
here.mkdir(exist_ok=True)
def run(*command, cwd=here):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout
entries = []
for name in {[*SERVICES, *LIBRARIES]!r}:
    run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
    (archive,) = here.glob(name + "_*.deb")
    tree = here / name
    run("dpkg-deb", "--raw-extract", archive, tree)
    archive.unlink()
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    lines = [line + "+pergola1" if line.startswith("Version:") else line for line in lines]
    control.write_text("\\n".join(lines) + "\\n")
    conffiles = tree / "DEBIAN/conffiles"
    for path in conffiles.read_text().split() if conffiles.exists() else []:
        file = tree / path.lstrip("/")
        if file.suffix in (".conf", ".ini"):
            file.write_text(file.read_text() + "# changed by an update\\n")
    sums = tree / "DEBIAN/md5sums"
    sums.unlink(missing_ok=True)
    archive = here / (name + ".deb")
    run("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", tree, archive)
    data = archive.read_bytes()
    entries.append(
        run("dpkg-deb", "--field", archive)
        + f"Filename: ./{{archive.name}}\\nSize: {{len(data)}}\\n"
        + f"SHA256: {{hashlib.sha256(data).hexdigest()}}\\n"
    )
packages = "\\n".join(entries)
(here / "Packages").write_text(packages)
(here / "Release").write_text(
    "Origin: PergolaTest\\nLabel: PergolaTest\\nSuite: updates\\nCodename: updates\\nSHA256:\\n"
    f" {{hashlib.sha256(packages.encode()).hexdigest()}} {{len(packages)}} Packages\\n"
)
"""
SOURCES = f"deb [trusted=yes] file:{REPOSITORY} ./"
ALLOWED = 'Unattended-Upgrade::Origins-Pattern { "origin=PergolaTest"; };'

# Writes through PgBouncer until the standard input ends: the longest time between two commits, and what
# failed.
WRITER = """
import json, os, sys, threading, time
import psycopg

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
failed, last, longest, done = [], time.monotonic(), 0, 0
with psycopg.connect(os.environ["DATABASE_DIRECT_URL"], autocommit=True) as one:
    one.execute("CREATE TABLE IF NOT EXISTS pergola_writes (at timestamptz)")
while not ended.is_set():
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as one:
            one.execute("INSERT INTO pergola_writes VALUES (now())")
        now = time.monotonic()
        longest, last, done = max(longest, now - last), now, done + 1
    except psycopg.Error as error:
        failed.append(str(error))
    time.sleep(0.02)
with psycopg.connect(os.environ["DATABASE_DIRECT_URL"], autocommit=True) as one:
    kept = one.execute("SELECT count(*) FROM pergola_writes").fetchone()[0]
    one.execute("DROP TABLE pergola_writes")
print(json.dumps({"failed": failed, "pause": round(longest, 1), "done": done, "kept": kept}))
"""

# (!) restart-outdated waits for dpkg, and may itself start after the last of them has ended
SETTLE = """
for _ in $(seq 300); do
    sleep 1
    [ "$(systemctl is-active restart-outdated.service)" = activating ] || break
done
sleep 3
"""


def as_root(replica):
    """Root's shell on the machine, as run_probe() takes it, with time for an update."""

    def run(command):
        login = [*replica.settings["host_login"], "--", "sudo sh -c " + quoted(command)]
        done = subprocess.run(login, capture_output=True, text=True, timeout=900, check=False)
        return SimpleNamespace(rc=done.returncode, stdout=done.stdout, stderr=done.stderr)

    return SimpleNamespace(run=run)


class Update:
    """What happened while commands ran on the machine, under load."""

    def __init__(self, replica, load, commands):
        log = f"{REPOSITORY}.log"
        before = f"{{ {commands}\n{SETTLE} }} > {log} 2>&1"
        self.writes = run_probe(as_root(replica), replica.settings, WRITER, before=before)
        self.log = replica.run(f"cat {log}; journalctl --no-pager -o cat -u restart-outdated --since=-15min")
        self.load = load.stop()

    def lost_nothing(self):
        print(f"requests: {self.load.counts['requests']}, longest pause of writes: {self.writes['pause']} s")
        assert self.load.lost_nothing, f"{self.load.said}\n{self.log}"
        assert self.writes["failed"] == [], self.log
        assert self.writes["kept"] == self.writes["done"]
        # the promise is 5 s, more on a slow machine; without PgBouncer's PAUSE it was 14.5 s
        assert self.writes["pause"] < 12, self.log


@pytest.fixture
def load(replica, addresses, users, tmp_path):
    options = ["--url", replica.url, "--ca", replica.authority, "--seconds", 1200]
    options += ["--addresses", ",".join(addresses), "--users", ",".join(users), "--rooms", 10]
    options += ["--pause", 4, "--message-pause", 10, "--visitors", 4]
    # a job whose worker ends with Redis comes back after the visibility timeout; few jobs, as the sample
    # refuses more while many wait
    options += ["--settle", 240, "--job-pause", 20]
    # (!) httpx abandons requests by HTTP/2 when the server says GOAWAY, although nginx answers them:
    # tests/infra/test_nginx.py has a client that waits
    options += ["--http-1"]
    with running(tmp_path, *options) as clients:
        yield clients


def outdated(replica):
    """Services whose main process uses a library that was replaced, but for those that end with a login."""
    return replica.run(
        "for unit in"
        " $(systemctl list-units --plain --legend=no --type=service --state=running | cut -d' ' -f1"
        "  | grep -v '^user@'); do"
        "  pid=$(systemctl show --property=MainPID --value $unit);"
        "  [ $unit != nginx.service ] || pid=$(cat /run/nginx.pid);"  # the earlier master may still finish
        "  grep -qE ' /usr/.*\\.so.* \\(deleted\\)$' /proc/$pid/maps && echo $unit; done; true"
    ).split()


def test_reinstalled_services_lose_no_request(replica, load):
    names = " ".join(SERVICES)
    update = Update(replica, load, f"DEBIAN_FRONTEND=noninteractive apt-get -y install --reinstall {names}")
    update.lost_nothing()
    assert set(outdated(replica)) <= NOT_RESTARTED, update.log


@pytest.fixture
def updates(replica):
    """Newer packages in a repository that unattended-upgrades takes; afterwards Debian's own again."""
    names = " ".join([*SERVICES, *LIBRARIES])
    installed = replica.run(f"dpkg-query -W -f '${{Package}}=${{Version}} ' {names}")
    replica.run("python3 -", given=REPACK)
    replica.run(f"echo '{SOURCES}' > /etc/apt/sources.list.d/pergola-updates.list")
    replica.run(f"echo '{ALLOWED}' > /etc/apt/apt.conf.d/99pergola-updates")
    replica.run("apt-get -qq update")
    yield
    replica.run("rm -f /etc/apt/sources.list.d/pergola-updates.list /etc/apt/apt.conf.d/99pergola-updates")
    replica.run(f"rm -rf {REPOSITORY} {REPOSITORY}.log; apt-get -qq update")
    as_root(replica).run(f"apt-get -qq -y --allow-downgrades install {installed}\n{SETTLE}")


def test_an_update_by_itself_takes_effect_and_loses_no_request(replica, updates, load):
    """Changed configuration files do not hold a package back, and nothing goes on with the old library."""
    before = replica.run("cat /etc/redis/redis.conf /etc/nginx/nginx.conf /etc/pgbouncer/pgbouncer.ini")
    update = Update(replica, load, "unattended-upgrade --verbose")
    versions = replica.run(
        f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {' '.join([*SERVICES, *LIBRARIES])}"
    )
    assert all(line.endswith("+pergola1") for line in versions.splitlines()), versions + update.log
    update.lost_nothing()
    assert set(outdated(replica)) <= NOT_RESTARTED, update.log
    assert (
        replica.run("cat /etc/redis/redis.conf /etc/nginx/nginx.conf /etc/pgbouncer/pgbouncer.ini") == before
    )
