"""A control machine made from Debian packages alone, that shares this host's kernel and network."""

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MACHINES = [sys.executable, "-m", "pergola.machines"]
SOURCE = "/srv/pergola.git"
CHECKOUT = "/srv/our pérgola"  # a folder may be called so
AUTHORITIES = "usr/local/share/ca-certificates"
SECONDS = 900
# systemd-nspawn needs / to be a mount point, so no plain chroot. Standard input closes when the test ends or
# is killed; then bash ends, the first process in here, and the kernel ends everything else with it.
ENTER = """
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . .
umount --lazy .
exec bash -c 'echo entered; read -r'
"""


def sh(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class Workshop:
    """Where machines are made: a directory that only one run uses, empty before and after."""

    def __init__(self, states):
        states.mkdir(parents=True, exist_ok=True)
        self.work = states / "fresh"
        self.log = (states / "fresh.log").open("a+b")
        try:
            fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"{self.log.name}: another run is using this state directory") from None
        self.log.truncate(0)
        self.clean()
        self.work.mkdir(mode=0o700)  # setuid programs are in there
        state = [f"--state={self.work}", f"--images={self.work}"]
        lacking = sh(*MACHINES, *state, "check", "198.18.0.0/15", "fresh").split()
        if lacking:
            sh(*MACHINES, *state, "install", *lacking)

    def clean(self):
        for record in self.work.glob(f"*{CHECKOUT}/.pergola/*/machines.json"):
            sh(*MACHINES, f"--state={record.parent}", "down", "--seconds=0")
        sh("rm", "-rf", "--one-file-system", "--", self.work)

    def image(self, release):
        """Less than any installed Debian: apt's essentials, no package lists, no machine-id."""
        image = self.work / release
        sh("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", release, image)
        (image / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        # behind systemd-resolved's own address are those that machines can reach too
        servers = [Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")]
        shutil.copy(next(filter(Path.exists, servers)), image / "etc/resolv.conf")
        # whoever must trust a company's authority put it there before anything else
        (image / AUTHORITIES).mkdir(parents=True, exist_ok=True)
        for authority in Path("/", AUTHORITIES).rglob("*.crt"):
            shutil.copy(authority, image / AUTHORITIES)
        sh("git", "clone", "--quiet", "--bare", ROOT, f"{image}{SOURCE}")
        # git is asked by another than the owner of it
        (image / "etc/gitconfig").write_text(f"[safe]\n\tdirectory = {SOURCE}\n")
        return image

    @contextlib.contextmanager
    def machine(self, image, tell):
        root = self.work / "machine"
        sh("cp", "--archive", "--reflink=auto", image, root)
        command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", ENTER, "sh", root]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        holder = subprocess.Popen(command, start_new_session=True, **pipes)
        try:
            assert holder.stdout.readline() == b"entered\n", self.tail()
            yield ControlMachine(self, holder.pid, root, tell)
        finally:
            holder.stdin.close()
            holder.wait(60)
            holder.stdout.close()
            for record in root.glob(f"{CHECKOUT[1:]}/.pergola/*/machines.json"):
                sh(*MACHINES, f"--state={record.parent}", "down", "--seconds=0")
            sh("rm", "-rf", "--one-file-system", "--", root)

    def said(self, offset):
        self.log.seek(offset)
        return self.log.read().decode(errors="replace")

    def tail(self):
        return f"the end of {self.log.name}:\n" + "\n".join(self.said(0).splitlines()[-60:])


class ControlMachine:
    def __init__(self, workshop, holder, root, tell):
        self.workshop = workshop
        self.root = root
        self.tell = tell
        self.holder = Path(f"/proc/{holder}")
        self.enter = ["nsenter", f"--mount={self.holder}/ns/mnt", f"--pid={self.holder}/ns/pid_for_children"]
        self.deadline = time.monotonic() + SECONDS

    def run(self, command, directory="/", home="/root", before=()):
        """What it said. Nothing of this host's environment is known to it."""
        __tracebackhide__ = True
        variables = {"HOME": home, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        variables |= {"TERM": "dumb", "LANG": "C.UTF-8"}
        if "CI" in os.environ:
            variables["CI"] = os.environ["CI"]
        variables = [f"{name}={value}" for name, value in variables.items()]
        script = f"cd {shlex.quote(directory)}\n{command}"
        command_line = [*self.enter, "env", "-i", *variables, *before, "bash", "-ec", script]
        log = self.workshop.log
        offset = log.seek(0, os.SEEK_END)
        log.write(f"\n$ {command}\n".encode())
        log.flush()
        start = time.monotonic()
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        try:
            code = subprocess.run(
                command_line, check=False, timeout=max(1, self.deadline - start), **streams
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"no end: {SECONDS} s are over"
        self.tell(f"{time.monotonic() - start:6.1f} s  {command}")
        assert code == 0, f"{command}: {code}\n{self.workshop.tail()}"
        return self.workshop.said(offset).partition(f"$ {command}\n")[2]

    def processes(self):
        """Command lines of all but the first, which holds the machine open."""
        found = []
        for process in (self.holder / "root/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if process.name != "1":
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    def mounts(self):
        return (self.holder / "mounts").read_text()
