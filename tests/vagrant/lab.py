"""A place where `vagrant up` runs in LXC and leaves nothing behind.

Vagrant and the container live in mount, network and process namespaces of their own, under one process: when
that one ends, and it ends with the tests however they end, all of it is gone. On the host it has what a local
environment has, a free network with a bridge and a firewall table, made and removed by the same code. So a
person's machines and other test runs may be there at the same time, even with the same addresses.
"""

import contextlib
import fcntl
import os
import re
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import yaml
from machines.environment import ANSIBLE, IMAGES, ROOT, STATES, traces, wait_until
from vagrant import boxes

STATE = STATES / "vagrant"  # (!) no space in it: vagrant-lxc hands its box's path to a shell unquoted
INVENTORY = ANSIBLE / "inventory/vagrant"
PACKAGES = ["bridge-utils", "curl", "lxc", "make", "sudo", "vagrant", "vagrant-libvirt", "vagrant-lxc"]
MACHINES = ANSIBLE / "roles/machines"
machines = SimpleNamespace(**runpy.run_path(str(MACHINES / "files/machines.py")))

# The way out; the Vagrantfile's fixed network is elsewhere.
UPLINKS = "198.18.0.0/15"

# Run by the first process of the namespaces. Its number as the host counts is read before /proc is its own;
# /sys is mounted anew to show the own network's links, and the control groups move along.
BEGIN = """set -e
read -r pid _ < /proc/self/stat
mount -t proc proc /proc
mkdir -p "$STATE/sys" "$STATE/lxc" "$STATE/log"
mount -t sysfs sysfs "$STATE/sys"
mount --move /sys/fs/cgroup "$STATE/sys/fs/cgroup"
mount --move "$STATE/sys" /sys
mount --bind "$STATE/lxc" /var/lib/lxc
mount --bind "$STATE/log" /var/log
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
mkdir -p "${resolv%/*}" /run/tmp
[ -e "$resolv" ] || : > "$resolv"
mount --bind "$STATE/resolv.conf" "$resolv"
ip link set lo up
ip link add lxcbr0 type bridge
ip link set lxcbr0 up
echo "$pid"
sleep infinity &
wait
"""


class Lab:
    def __init__(self):
        self.timings = []
        self.process = None

    def begin(self):
        self.clear()
        (STATE / "network").mkdir(parents=True)
        packages = yaml.safe_load((MACHINES / "defaults/main.yml").read_text())["machines_packages"]
        with self.timed("base image, once"):
            machines.image(IMAGES, "", packages)
        machines.network(STATE / "network", UPLINKS, ["app"])
        self.open_namespaces()
        with self.timed("box"):
            self.build_box()
            self.works("vagrant", "box", "add", "--name", "pergola", STATE / "made.box", seconds=60)

    def install(self):
        """As far as it is missing: a person's own Vagrant and its services stay as they are."""
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        lacking = [package for file, package in machines.PACKAGES.items() if not existing(file)]
        lacking += [package for package in PACKAGES if not installed(package)]
        if not lacking:
            return
        machines.install(lacking)
        if "lxc" in lacking and Path("/run/systemd/system").exists():
            subprocess.run(["systemctl", "disable", "--quiet", "--now", "lxc", "lxc-net"], check=True)

    @property
    def record(self):
        return machines.load(STATE / "network")

    @property
    def bridge(self):
        return next(name for name, (owner, _) in machines.bridges().items() if owner == self.record["id"])

    def open_namespaces(self):
        (STATE / "resolv.conf").write_text(machines.name_servers())
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--pid", "--ipc"),
                *("--fork", "--kill-child", "sh", "-c", BEGIN),
            ],
            env=os.environ | {"STATE": str(STATE)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.stdout.readline().strip()
        assert self.pid, "the namespaces could not be made"
        bridge, network = self.bridge, self.record["network"].removesuffix("0/24")
        link = ["ip", "link", "add", f"{bridge}-v", "type", "veth", "peer", "uplink", "netns", self.pid]
        subprocess.run(link, check=True)
        subprocess.run(["ip", "link", "set", f"{bridge}-v", "master", bridge, "up"], check=True)
        self.works("ip", "link", "set", "uplink", "master", "lxcbr0", "up")
        self.works("ip", "address", "add", f"{network}2/24", "dev", "lxcbr0")
        self.works("ip", "route", "add", "default", "via", f"{network}1")

    @property
    def name(self):
        return f"{self.bridge}-app"

    def build_box(self):
        address, network = self.record["addresses"]["app"], self.record["network"]
        way = f"Address={address}/24\nGateway={network.replace('0/24', '1')}\n"
        box = STATE / "box"
        box.mkdir()
        with machines.locked(IMAGES / ".lock", fcntl.LOCK_SH):
            boxes.tree(box / "rootfs", next(IMAGES.glob("debian-13-*")), machines.name_servers(), way)
        home = boxes.lxc(box, STATE / "made.box", self.name)
        machines.remove_tree(box)
        (STATE / "home").mkdir()
        (STATE / "home/Vagrantfile").write_text(home)

    @property
    def settings(self):
        return {
            "PERGOLA_BOX": "pergola",
            "PERGOLA_STATE": str(STATE),
            "TMPDIR": "/run/tmp",  # short, for the paths of sockets
            "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_DEFAULT_PROVIDER": "lxc",
            "VAGRANT_DOTFILE_PATH": str(STATE / "dotfiles"),
            "VAGRANT_HOME": str(STATE / "home"),
        }

    def start(self, *command, **environment):
        """Start a command in the namespaces, in the checkout. Its output goes to a file: what it starts may
        hold a pipe open for ever."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--ipc", f"--wdns={ROOT}"]
        with (STATE / "output").open("wb") as file:
            return subprocess.Popen(
                [*enter, *map(str, command)],
                env=os.environ | self.settings | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *command, seconds=60, **environment):
        done = self.start(*command, **environment)
        try:
            done.wait(seconds)
        finally:
            self.end_group(done)
            done.output = (STATE / "output").read_text()
            print("$", *command)
            print(done.output)
        return done

    def interrupt(self, *command, when, seconds=60):
        """Kill a command as soon as `when` is true."""
        started = self.start(*command)
        try:
            wait_until(when, seconds, f"{command} comes so far")
            assert started.poll() is None
        finally:
            self.end_group(started)
            print("$", *command)
            print((STATE / "output").read_text())

    @staticmethod
    def end_group(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def works(self, *command, **options):
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command} returned {done.returncode}"
        return done.output

    @contextlib.contextmanager
    def timed(self, what):
        began = time.monotonic()
        yield
        self.timings.append((what, time.monotonic() - began))

    def end(self):
        """Whatever the tests left, and then look whether anything is still there."""
        if not STATE.exists():
            return
        record = self.record
        bridge = self.bridge if record else "none"
        if self.process:
            self.process.kill()
            self.process.wait()
            wait_until(lambda: not Path("/proc", self.pid).exists(), 20, "the namespaces' processes end")
            # a closed connection to a machine that is gone keeps its network, and so the link, for a minute
            subprocess.run(["ip", "link", "delete", f"{bridge}-v"], capture_output=True, check=False)
        self.clear()
        left = left_of(bridge)
        assert not left, "\n".join(left)

    def clear(self):
        if (STATE / "network").exists():
            bridge = self.bridge if self.record and machines.own_bridge(self.record) else ""
            for group in Path("/sys/fs/cgroup").rglob(f"{bridge}-app*") if bridge else ():
                machines.remove_groups(group)
            machines.down(STATE / "network", 10)
        if STATE.exists():
            machines.remove_tree(STATE)


def left_of(bridge):
    """What the host shows of this bridge or of the state directory."""
    found = traces(bridge, str(STATE))
    return [line for line in found if re.search(rf"\b{bridge}\b", line) or str(STATE) in line]


def existing(file):
    return shutil.which(file) or Path(file).exists()


def installed(package):
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.startswith("ii")


def address():
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    return hosts["vagrant"]["hosts"]["app"]["ansible_host"]
