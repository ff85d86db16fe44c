"""A place where `vagrant up` runs, in LXC or in an emulated machine, and leaves nothing behind.

Vagrant, libvirt and the machine live in mount, network and process namespaces of their own, under one
process: when that one ends, and it ends with the tests however they end, all of it is gone. On the host it
has what a local environment has, a free network with a bridge and a firewall table, made and removed by the
same code. So a person's machines and other test runs may be there at the same time, even with the same
addresses.
"""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import yaml
from machines.environment import ANSIBLE, IMAGES, ROOT, STATES, traces
from vagrant import boxes
from waiting import wait_until

from pergola.machines import cgroups, files, host, image, lifecycle, system
from pergola.machines import network as networks
from pergola.machines import record as records

STATE = STATES / "vagrant"  # (!) no space in it: vagrant-lxc hands its box's path to a shell unquoted
INVENTORY = ANSIBLE / "inventory/vagrant"
PROVIDER = os.environ.get("PROVIDER") or "lxc"
PACKAGES = ["bridge-utils", "curl", "lxc", "make", "sudo", "vagrant", "vagrant-libvirt", "vagrant-lxc"]
SERVICES = {"lxc": ["lxc", "lxc-net"]}
if PROVIDER == "libvirt":
    PACKAGES += ["dnsmasq-base", "e2fsprogs", "iptables", "libvirt-clients", "libvirt-daemon-system"]
    PACKAGES += ["qemu-system-x86", "qemu-utils"]
    SERVICES["libvirt-daemon-system"] = [
        *("libvirt-guests", "libvirtd", "libvirtd.socket", "libvirtd-admin.socket", "libvirtd-ro.socket"),
        *("virtlockd.socket", "virtlogd.socket"),
    ]

PATIENCE = 1 if PROVIDER == "lxc" else 12  # an emulated machine computes some 20 times slower
VIRSH = ["virsh", "--connect", "qemu:///system"]

# The way out; the Vagrantfile's fixed network is elsewhere.
UPLINKS = "198.18.0.0/15"

# Run by the first process of the namespaces. Its number as the host counts is read before /proc is its own;
# /sys is mounted anew to show the own network's links.
BEGIN = """set -e
read -r pid _ < /proc/self/stat
mount -t proc proc /proc
mkdir -p "$STATE/sys" "$STATE/log"
mount -t sysfs sysfs "$STATE/sys"
%s
mount --move "$STATE/sys" /sys
mount --bind "$STATE/log" /var/log
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
mkdir -p "${resolv%%/*}" /run/tmp
[ -e "$resolv" ] || : > "$resolv"
mount --bind "$STATE/resolv.conf" "$resolv"
ip link set lo up
ip link add lxcbr0 type bridge
ip link set lxcbr0 up
echo "$pid"
sleep infinity &
wait
"""
OWN = {
    "lxc": """mkdir "$STATE/lxc"
mount --bind "$STATE/lxc" /var/lib/lxc
mount --move /sys/fs/cgroup "$STATE/sys/fs/cgroup"
""",
    # libvirt that sees no control groups makes none, which would outlive it. Where root alone may open
    # /dev/kvm, it would ask QEMU anew what it can each time that it defines a machine, for 48 s.
    "libvirt": """for place in /etc/libvirt /var/cache/libvirt /var/lib/libvirt; do
    mkdir -p "$STATE/libvirt$place"
    mount --bind "$STATE/libvirt$place" "$place"
done
mkdir /var/lib/libvirt/boot "$STATE/log/libvirt"
cat "$SETTINGS" - > "$STATE/settings.yml" << END
# an emulated machine takes a minute to import what a release is made of, and longer the more processes do
app_web_workers: 2
deploy_ready_seconds: 600
END
mount --bind "$STATE/settings.yml" "$SETTINGS"
umount --lazy --recursive /sys/fs/cgroup
if [ -e /dev/kvm ]; then
    cp -a /dev/kvm "$STATE/kvm"
    chmod a+rw "$STATE/kvm"
    mount --bind "$STATE/kvm" /dev/kvm
fi
""",
}


class Lab:
    def __init__(self):
        self.timings = []
        self.process = None
        self.tell = print

    def begin(self):
        self.clear()
        (STATE / "network").mkdir(parents=True)
        settings = yaml.safe_load((ANSIBLE / "group_vars/all/machines.yml").read_text())
        packages = settings["machines_packages"]
        images = IMAGES
        if PROVIDER == "libvirt":
            images, packages = STATE / "images", packages + boxes.KERNEL
        with self.timed("base image, once"):
            image.build(images, "", packages)
        lifecycle.network(STATE / "network", UPLINKS, ["app"])
        self.open_namespaces()
        with self.timed("box"):
            self.build_box(images)
            self.works("vagrant", "box", "add", "--name", "pergola", STATE / "made.box")
        if PROVIDER == "libvirt":
            with self.timed("libvirt"):
                self.works("virtlogd", "--daemon")
                self.works("libvirtd", "--daemon")
                wait_until(lambda: self.run(*VIRSH, "version").returncode == 0, "libvirt to answer")

    def install(self):
        """As far as it is missing: a person's own Vagrant and its services stay as they are."""
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        lacking = host.lacking()
        lacking += [package for package in PACKAGES if not installed(package)]
        if not lacking:
            return
        host.install(lacking)
        services = [service for package in lacking for service in SERVICES.get(package, [])]
        if services and Path("/run/systemd/system").exists():
            subprocess.run(["systemctl", "disable", "--quiet", "--now", *services], check=True)

    @property
    def record(self):
        return records.load(STATE / "network")

    @property
    def bridge(self):
        return networks.own_bridge(self.record)

    def open_namespaces(self):
        (STATE / "resolv.conf").write_text(files.name_servers())
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--pid", "--ipc"),
                *("--fork", "--kill-child", "sh", "-c", BEGIN % OWN[PROVIDER]),
            ],
            env=os.environ | {"STATE": str(STATE), "SETTINGS": str(INVENTORY / "group_vars/vagrant.yml")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.stdout.readline().strip()
        assert self.pid, "the namespaces could not be made"
        bridge, network = self.bridge, self.record.network.removesuffix("0/24")
        link = ["ip", "link", "add", f"{bridge}-v", "type", "veth", "peer", "uplink", "netns", self.pid]
        subprocess.run(link, check=True)
        subprocess.run(["ip", "link", "set", f"{bridge}-v", "master", bridge, "up"], check=True)
        self.works("ip", "link", "set", "uplink", "master", "lxcbr0", "up")
        self.works("ip", "address", "add", f"{network}2/24", "dev", "lxcbr0")
        self.works("ip", "route", "add", "default", "via", f"{network}1")

    @property
    def name(self):
        return f"{self.bridge}-app"

    @property
    def shell(self):
        """What runs a line inside the machine; a container's needs neither its network nor its sshd."""
        attach = ["lxc-attach", "--name", self.name, "--", "sh", "-c"]
        return attach if PROVIDER == "lxc" else ["vagrant", "ssh", "--command"]

    def build_box(self, images):
        box, made = STATE / "box", STATE / "made.box"
        box.mkdir()
        way = "DHCP=ipv4\n"
        if PROVIDER == "lxc":
            address, network = self.record.addresses["app"], self.record.network
            way = f"Address={address}/24\nGateway={network.replace('0/24', '1')}\n"
        with system.locked(images / ".lock", fcntl.LOCK_SH):
            boxes.tree(box / "rootfs", image.current(images), files.name_servers(), way)
        if PROVIDER == "lxc":
            home = boxes.lxc(box, made, self.name)
        else:
            place = "/var/lib/libvirt/boot"
            home = boxes.libvirt(box, made, STATE / f"libvirt{place}", place)
        system.remove_tree(box)
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
            "VAGRANT_DEFAULT_PROVIDER": PROVIDER,
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
            self.wait(done, seconds * PATIENCE)
        finally:
            self.end_group(done)
            done.output = (STATE / "output").read_text()
            print("$", *command)
            print(done.output)
        return done

    def wait(self, process, seconds):
        """Say each minute where it is."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 60:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(60)
            lines = (STATE / "output").read_text().split("\n")
            self.tell(next((line for line in reversed(lines) if re.match(r"TASK|==>", line)), ""))
        return process.wait(left)

    def interrupt(self, *command, when, seconds=60):
        """Kill a command as soon as `when` is true."""
        started = self.start(*command)
        try:
            wait_until(when, f"{command} to come so far", seconds * PATIENCE)
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
        self.tell(f"{what} ...")
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
            wait_until(lambda: not Path("/proc", self.pid).exists(), "the namespaces' processes to end")
            # a closed connection to a machine that is gone keeps its network, and so the link, for a minute
            subprocess.run(["ip", "link", "delete", f"{bridge}-v"], capture_output=True, check=False)
        self.clear()
        left = left_of(bridge)
        assert not left, "\n".join(left)

    def clear(self):
        if (STATE / "network").exists():
            bridge = self.bridge if self.record and networks.own_bridge(self.record) else ""
            for group in Path("/sys/fs/cgroup").rglob(f"{bridge}-app*") if bridge else ():
                cgroups.remove(group)
            lifecycle.down(STATE / "network", 10)
        if STATE.exists():
            system.remove_tree(STATE)


def left_of(bridge):
    """What the host shows of this bridge or of the state directory."""
    found = traces(bridge, str(STATE))
    return [line for line in found if re.search(rf"\b{bridge}\b", line) or str(STATE) in line]


def installed(package):
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.startswith("ii")


def address():
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    return hosts["vagrant"]["hosts"]["app"]["ansible_host"]
