#!/usr/bin/env python3
"""Make, boot and remove Debian machines with systemd-nspawn. Run as root by the role `machines`.

Prints a line for each thing it changed, and nothing where nothing changed; refuses in one line on stderr.

STATE/machines.json is the record (id, network, addresses), STATE/machines/<name>/root a machine's files.
There is no pid file: a machine runs if the control group named after the state's random id holds its
supervisor. A network is claimed by creating its bridge, whose alias holds the id and what net.ipv4.ip_forward
was before the first of them. So nothing outlives a crash or a reboot of the host and lies about it.
"""

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
FIRST_ADDRESS = 10
REBOOT = 133  # systemd-nspawn --keep-unit leaves with it where the machine asked for a reboot
DISK_PER_MACHINE = 3 << 30
VAGRANT = "use `vagrant up`, which makes the same machine in a hypervisor"
PACKAGES = {
    "gpg": "gpg",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


def die(message) -> NoReturn:
    sys.exit(message)


def attempt(*command, **options):
    options = {"capture_output": True, "text": True, "check": False} | options
    return subprocess.run(command, **options)  # noqa: S603 - commands are this file's own


def run(*command, **options):
    done = attempt(*command, **options)
    if done.returncode:
        die(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def wait_for(condition, seconds, step=0.1):
    """The first true value of `condition`, or its last one when the time is up."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(step)
    return value


def write(path, text):
    """Replace a file where its text differs, by rename. True if it did."""
    if path.is_file() and path.read_text() == text:
        return False
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.replace(path)
    return True


@contextlib.contextmanager
def locked(path, mode=fcntl.LOCK_EX):
    """Hold a lock on a file, which is made where it is missing, or on a directory."""
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, mode)
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def network_lock():
    """One process of this network namespace at a time, whichever /run it sees; freed when it dies."""
    with socket.socket(socket.AF_UNIX) as lock:

        def taken():
            with contextlib.suppress(OSError):
                lock.bind("\0pergola-network")
                return True

        if not wait_for(taken, 60):
            die("Another `make up` or `make down` has been changing networks for a minute: end it first.")
        yield


def remove_tree(path):
    """Delete a directory tree, never through a mount."""
    if path.is_symlink() or path.resolve() != path:
        die(f"{path} is a symbolic link: remove it by hand.")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if inside := [mount for mount in mounts if Path(mount).is_relative_to(path)]:
        die(f"{inside[0]} is a mount point: unmount it first.")
    run("rm", "-rf", "--one-file-system", "--", str(path))


# Control groups: one a machine, `watch` in it for the supervisor and `machine` for what it boots.


def cgroup_mounts():
    """Where control groups are mounted, and which controllers or which name belong there; cgroup2 first."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounts = [
        (kind, Path(where), options) for _, where, kind, options, *_ in mounts if kind.startswith("cgroup")
    ]
    return {where: options.split(",") for _, where, options in sorted(mounts, reverse=True)}


def cgroup2():
    return next((path for path in cgroup_mounts() if (path / "cgroup.controllers").exists()), None)


def remove_groups(group):
    if group.exists():
        for directory in [*sorted(group.rglob("*/"), reverse=True), group]:
            # a group is busy for a moment after its last process went
            wait_for(lambda directory=directory: removed(directory), 5)


def removed(directory):
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


class Machine:
    def __init__(self, state, record, name):
        self.name = name
        self.home = state / "machines" / name
        self.root = self.home / "root"
        self.log = state / f"console-{name}.log"
        self.address = record["addresses"].get(name)
        self.network = ipaddress.ip_network(record["network"])
        self.nspawn_name = f"{bridge_name(self.network)}-{name}"
        group = f"pergola-{record['id']}-{name}"
        self.group = cgroup2() / group
        memory_v1 = [where for where, options in cgroup_mounts().items() if "memory" in options]
        self.memory_group = memory_v1[0] / group if memory_v1 else self.group

    def pids(self, part):
        found = []
        # os.walk passes over a directory that vanished meanwhile, as a unit's does when it ends
        for directory, _, _ in os.walk(self.group / part):
            with contextlib.suppress(OSError):
                found += Path(directory, "cgroup.procs").read_text().split()
        return found

    def init(self):
        """The machine's PID 1 as the host numbers it."""
        depth = len(status("self")["NSpid"].split())
        for pid in self.pids("machine"):
            seen = status(pid)
            numbers = seen.get("NSpid", "").split()
            if len(numbers) == depth + 1 and numbers[-1] == "1" and not seen["State"].startswith("Z"):
                return int(pid)
        return None

    def running(self):
        """Its init and its supervisor live. One alone passes in a moment: a boot, a reboot, an end."""
        settled = wait_for(lambda: self.init() or not self.pids("watch"), 10)
        return bool(settled and self.init() and self.pids("watch"))

    def kill(self):
        for part in ("watch", "machine"):
            with contextlib.suppress(FileNotFoundError):
                (self.group / part / "cgroup.kill").write_text("1")
            if not wait_for(lambda part=part: not self.pids(part), 20):
                die(f"{self.name}: processes in {self.group / part} survive SIGKILL.")
        self.clear_groups()

    def clear_groups(self):
        for mount in cgroup_mounts():  # systemd-nspawn copies its group into hierarchies that we do not use
            remove_groups(mount / self.group.name)
        # what a killed systemd-nspawn could not take away
        for leftover in Path("/run/systemd/nspawn").glob(f"*/{self.nspawn_name}"):
            attempt("umount", "--quiet", str(leftover))
            with contextlib.suppress(OSError):
                leftover.rmdir()

    def limit_memory(self, text):
        """Give the machine so much memory and no swap. False where this host cannot hold it to that."""
        size = str(int(text[:-1]) << {"M": 20, "G": 30}[text[-1]])
        self.memory_group.mkdir(exist_ok=True)
        if self.memory_group == self.group:
            files = {"memory.max": size, "memory.swap.max": "0"}
            with contextlib.suppress(OSError):
                (self.group.parent / "cgroup.subtree_control").write_text("+memory")
        else:
            files = {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size}
        limit, swap = (self.memory_group / file for file in files)
        if not limit.exists():
            return False
        if limit.read_text().strip() == size:
            return True
        if swap.exists() and swap.name == "memory.memsw.limit_in_bytes":
            swap.write_text("-1")  # may never be below the other limit
        limit.write_text(size)
        if swap.exists():
            swap.write_text(files[swap.name])
        print(f"{self.name}: memory limited to {text}")
        return True

    def start(self):
        for part in ("watch", "machine"):
            (self.group / part).mkdir(parents=True, exist_ok=True)

        def join():
            for group in {self.group / "watch", self.memory_group} - {self.group}:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        # stays when the terminal, the session and Ansible are gone
        subprocess.Popen(  # noqa: S603
            [sys.executable, __file__, f"--state={self.home.parent.parent}", "supervise", self.name],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=join,
        )

    def supervise(self):
        # the machine, not its supervisor, decides when it has ended
        signal.signal(signal.SIGTERM, lambda *_: None)

        def join():
            (self.group / "machine" / "cgroup.procs").write_text(str(os.getpid()))
            # mitogen keeps Ansible's processes, of which this is one, on one core each
            os.sched_setaffinity(0, range(os.cpu_count()))

        command = [
            "systemd-nspawn",
            f"--directory={self.root}",
            f"--machine={self.nspawn_name}",
            f"--hostname={self.name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--settings=no",
            "--private-users=no",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=read-only",
            f"--network-bridge={bridge_name(self.network)}",
            # without these three, systemd in the machine accepts IPAddressDeny and does not enforce it
            "--capability=CAP_BPF,CAP_PERFMON",
            "--system-call-filter=bpf",
        ]
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        code = REBOOT
        while code == REBOOT:
            code = attempt(*command, env=environment, preexec_fn=join, capture_output=False).returncode
            # a machine outlives its systemd-nspawn where only that was killed
            (self.group / "machine" / "cgroup.kill").write_text("1")
            wait_for(lambda: not self.pids("machine"), 20)
            for group in (self.group / "machine").glob("*/"):
                remove_groups(group)


def status(pid):
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {}


# The record


def load(state):
    record = state / "machines.json"
    return json.loads(record.read_text()) if record.exists() else None


def new_record():
    return {"id": secrets.token_hex(8), "network": "", "addresses": {}}


def save(state, record):
    return write(state / "machines.json", json.dumps(record, indent=2) + "\n")


# Networks


def bridge_name(network):
    return f"pergola{int(network.network_address) >> 8 & 511}"


def bridges():
    """Our bridges on this host: name -> (its state's id, net.ipv4.ip_forward before the first of them)."""
    found = {}
    for link in json.loads(run("ip", "-json", "link", "show", "type", "bridge") or "[]"):
        if re.fullmatch(r"pergola\d+", link.get("ifname", "")):
            found[link["ifname"]] = [*link.get("ifalias", "").split(), "", ""][:2]
    return found


def networks_in_use():
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    return [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route["dst"] not in ("default", "0.0.0.0/0") and re.match(r"\d", route["dst"])
    ]


def free_networks(record, range_):
    """The recorded network first if nobody took it, then from one that the state's random id picks."""
    networks = list(ipaddress.ip_network(range_).subnets(new_prefix=24))
    start = int(record["id"], 16) % len(networks)
    order = networks[start:] + networks[:start]
    order.sort(key=lambda network: str(network) != record["network"])
    ours, used = bridges(), networks_in_use()
    for network in order:
        if bridge_name(network) not in ours and not any(network.overlaps(other) for other in used):
            yield network
    die(f"No network of {range_} is free: run `make down` where none is needed, or set machines_networks.")


def own_bridge(record):
    return next((name for name, (owner, _) in bridges().items() if owner == record["id"]), None)


def claim(record, range_):
    """Take a free network: whoever creates its bridge has it."""
    ours = bridges()
    for name in [name for name, (owner, _) in ours.items() if not owner]:
        run("ip", "link", "delete", name)  # its maker died between two commands
    before = next((value for owner, value in ours.values() if owner), FORWARD.read_text().strip())
    for network in free_networks(record, range_):
        name = bridge_name(network)
        made = attempt("ip", "link", "add", name, "type", "bridge")
        if made.returncode == 0:
            run("ip", "link", "set", name, "alias", f"{record['id']} {before}")
            return network
        if "exists" not in made.stderr:
            break
    die(f"This host cannot make a bridge ({made.stderr.strip()}): {VAGRANT}.")


def foreign_chains(bridge):
    """Chains of the host's own firewall that judge forwarded packets, with the handles of our rules there."""
    ruleset = json.loads(run("nft", "-j", "-a", "list", "ruleset"))["nftables"]
    rules = [item["rule"] for item in ruleset if "rule" in item]
    for chain in (item["chain"] for item in ruleset if "chain" in item):
        if chain.get("hook") != "forward" or chain["family"] not in ("ip", "inet"):
            continue
        if re.fullmatch(r"pergola\d+", chain["table"]):
            continue
        key = (chain["family"], chain["table"], chain["name"])
        inside = [rule for rule in rules if (rule["family"], rule["table"], rule["chain"]) == key]
        if inside or chain.get("policy") == "drop":
            yield key, [str(rule["handle"]) for rule in inside if rule.get("comment") == bridge]


def open_firewall(network):
    bridge = bridge_name(network)
    changed = False
    if attempt("nft", "list", "table", "ip", bridge).returncode:
        # maxseg: the way out may carry smaller packets than the bridge, as a VPN's does
        table = f"""
            table ip {bridge} {{
                chain forward {{
                    type filter hook forward priority mangle
                    iifname "{bridge}" oifname != "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat
                    ip saddr {network} ip daddr != {network} masquerade
                }}
            }}"""
        run("nft", "-f", "-", input=table)
        changed = True
    # an accept of ours ends only our own chain: Docker's or a site's default drop must hear it in theirs
    for key, handles in foreign_chains(bridge):
        if not handles:
            for direction in ("iifname", "oifname"):
                rule = [direction, bridge, "counter", "accept", "comment", f'"{bridge}"']
                run("nft", "insert", "rule", *key, *rule)
            changed = True
    if FORWARD.read_text().strip() != "1":
        FORWARD.write_text("1")
        changed = True
    return changed


def close_network(record):
    with network_lock():
        ours = bridges()
        for bridge in [name for name, (owner, _) in ours.items() if owner == record["id"]]:
            last = not [name for name, (owner, _) in ours.items() if owner and name != bridge]
            if last and FORWARD.read_text().strip() != ours[bridge][1]:
                FORWARD.write_text(ours[bridge][1])
            for key, handles in foreign_chains(bridge):
                for handle in handles:
                    run("nft", "delete", "rule", *key, "handle", handle)
            attempt("nft", "delete", "table", "ip", bridge)
            run("ip", "link", "delete", bridge)
            print(f"removed {bridge}")


# What the role calls


def check(state, images, range_, names):
    """Refuse at once, by name, a host that cannot carry machines. Prints the packages that it lacks."""
    tried = attempt("unshare", "-muinpf", "--mount-proc", "true")
    if tried.returncode:
        die(f"This host refuses namespaces, as a container does ({tried.stderr.strip()}): {VAGRANT}.")
    if not cgroup2() or not os.access(cgroup2(), os.W_OK):
        die(f"This host has no writable cgroup2 file system: {VAGRANT}.")
    new = [name for name in names if not (state / "machines" / name).exists()]
    free = min(shutil.disk_usage(existing(path)).free for path in (state, images))
    if free < DISK_PER_MACHINE * len(new):
        needed = DISK_PER_MACHINE * len(new) >> 30
        die(
            f"{state} has {free / (1 << 30):.1f} of {needed} GiB: free some, set PERGOLA_STATE, or {VAGRANT}."
        )
    lacking = [
        package for file, package in PACKAGES.items() if not (shutil.which(file) or Path(file).exists())
    ]
    if lacking and not shutil.which("apt-get"):
        die(f"This host lacks {' '.join(lacking)} (as Debian calls them): install them, or {VAGRANT}.")
    record = load(state) or new_record()
    if shutil.which("ip") and not own_bridge(record):
        next(free_networks(record, range_))
    print(*lacking, sep="\n", end="\n" if lacking else "")


def existing(path):
    return path if path.exists() else existing(path.parent)


def install(packages):
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    options = ["--yes", "--quiet", "--no-install-recommends", "--option=DPkg::Lock::Timeout=120"]
    with locked(Path("/var/lib/apt")):  # `apt-get update` fails where another one is running
        attempt("apt-get", "--quiet", "update")  # one broken source of the host's need not matter
        run("apt-get", "install", *options, *packages)


def image(images, mirror, packages):
    """Build the base image under a name made of its recipe, unless it stands. Its path is the last line."""
    hook = """set -e
        rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf" "$1/etc/hostname"
        : > "$1/etc/machine-id"
        chroot "$1" systemctl --quiet enable systemd-networkd
        rm -rf "$1"/var/cache/apt/archives/*.deb"""
    sources = mirror and [
        f"deb {mirror} trixie main",
        f"deb {mirror} trixie-updates main",
        f"deb {mirror}-security trixie-security main",
    ]
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        f"--customize-hook={hook}",
        "trixie",
    ]
    recipe = hashlib.sha256(repr((command, sources)).encode()).hexdigest()[:12]
    images.mkdir(parents=True, exist_ok=True)
    images.chmod(0o700)  # holds setuid programs
    wanted = images / f"debian-13-{recipe}"
    with locked(images / ".lock"):
        if wanted.exists():
            return
        for leftover in images.glob(".building-*"):
            remove_tree(leftover)
        aside = images / f".building-{recipe}"
        run(*command, str(aside), *(sources or []))
        aside.rename(wanted)
        for old in images.glob("debian-13-*"):
            if old != wanted:
                remove_tree(old)
        print(f"built {wanted}")


def network(state, range_, names):
    with network_lock(), locked(state / ".lock"):
        record = load(state) or new_record()
        save(state, record)
        if not own_bridge(record):
            # what still runs hangs on a bridge that is gone
            for name in record["addresses"]:
                Machine(state, record, name).kill()
            taken = str(claim(record, range_))
            if taken != record["network"]:
                record |= {"network": taken, "addresses": dict.fromkeys(record["addresses"], "")}
            print(f"took {taken}")
        net = ipaddress.ip_network(record["network"])
        bridge = bridge_name(net)
        save(state, record)
        run("ip", "address", "replace", f"{net[1]}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        if open_firewall(net):
            print(f"opened {bridge}")
        known = record["addresses"]
        free = (str(net[number]) for number in range(FIRST_ADDRESS, 255))
        for name in [*known, *(name for name in names if name not in known)]:
            if not known.get(name):
                known[name] = next(address for address in free if address not in known.values())
        if save(state, record):
            print("wrote machines.json")


def name_servers():
    """The host's name servers that a machine can reach: not its loopback's, but those behind it."""
    for file in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        with contextlib.suppress(FileNotFoundError):
            lines = Path(file).read_text().splitlines()
            kept = [line for line in lines if re.match(r"(nameserver|search|options)\s", line)]
            kept = [line for line in kept if not re.match(r"nameserver\s+(127\.|::1)", line)]
            if any(line.startswith("nameserver") for line in kept):
                return "\n".join(kept) + "\n"
    die("Machines cannot reach this host's name servers, all on its loopback: name one in /etc/resolv.conf.")


def create(machine, image_path, key):
    aside = machine.home.with_name(f".{machine.name}.new")
    if aside.exists():
        remove_tree(aside)
    aside.mkdir(parents=True, mode=0o700)
    machine.home.parent.chmod(0o700)  # in there are other users' numbers and setuid programs
    root = aside / "root"
    run("cp", "--archive", "--reflink=auto", str(image_path), str(root))
    run("ssh-keygen", "-q", "-A", "-f", str(root))
    for public in (root / "etc/ssh").glob("ssh_host_*.pub"):
        public.write_text(" ".join(public.read_text().split()[:2]) + f" root@{machine.name}\n")
    (root / "etc/hostname").write_text(f"{machine.name}\n")
    (root / "etc/hosts").write_text(
        f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n::1 localhost ip6-localhost ip6-loopback\n"
    )
    # a new network namespace has its host's setting, a server Debian's
    (root / "etc/sysctl.d/10-forwarding.conf").write_text("net.ipv4.ip_forward = 0\n")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (root / "root/.ssh/authorized_keys").write_text(key)
    for authority in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
        shutil.copy(authority, root / "usr/local/share/ca-certificates")
    run("chroot", str(root), "update-ca-certificates")
    aside.rename(machine.home)
    print(f"{machine.name}: made")


def up(state, images, name, memory):
    record = load(state)
    machine = Machine(state, record, name)
    if not machine.home.exists():
        with locked(images / ".lock", fcntl.LOCK_SH):
            create(machine, next(images.glob("debian-13-*")), (state / "ssh/id_ed25519.pub").read_text())
    known_hosts(state, record)
    if machine.running():
        machine.limit_memory(memory)
        return
    machine.kill()
    machine.group.mkdir()
    if not machine.limit_memory(memory):
        print(f"note: this host cannot limit {name} to {memory} of memory (no memory controller)")
    write(
        machine.root / "etc/systemd/network/10-host0.network",
        f"[Match]\nName=host0\n\n[Network]\nAddress={machine.address}/24\nGateway={machine.network[1]}\n"
        "IPv6AcceptRA=no\n",
    )
    write(machine.root / "etc/resolv.conf", name_servers())
    machine.start()
    print(f"{name}: booting, its console is {machine.log}")


def known_hosts(state, record):
    with locked(state / ".lock"):
        lines = []
        for name, address in sorted(record["addresses"].items()):
            for key in sorted((state / "machines" / name / "root/etc/ssh").glob("ssh_host_*.pub")):
                lines.append(" ".join([address, *key.read_text().split()[:2]]) + "\n")
        write(state / "known_hosts", "".join(lines))


def wait(state, name, port, seconds):
    """Until the machine has booted and its sshd answers. Names what failed to start."""
    machine = Machine(state, load(state), name)

    def inside(*command):
        init = machine.init()
        if not init:
            return ""
        enter = ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        return attempt(*enter, *command).stdout.strip()

    def answers():
        with contextlib.suppress(OSError), socket.create_connection((machine.address, port), 2) as connection:
            return connection.recv(4) == b"SSH-"

    def booted():
        if not machine.pids("watch"):
            die(f"{name} ended while it booted: read {machine.log}.")
        now = inside("systemctl", "is-system-running")
        return now if now in ("running", "degraded") and answers() else None

    now = wait_for(booted, seconds, 0.2)
    if not now:
        die(f"{name} has not booted in {seconds} s: read {machine.log}.")
    if now == "degraded":
        failed = inside("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        print(f"note: {name} is up, but failed:", *[line.split()[0] for line in failed.splitlines()])


def down(state, seconds):
    record = load(state)
    if not record:
        return
    machines = [Machine(state, record, name) for name in record["addresses"]]
    for init in filter(None, [machine.init() for machine in machines]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGRTMIN + 4)
    wait_for(lambda: not any(machine.pids("watch") for machine in machines), seconds)
    for machine in machines:
        machine.kill()
        machine.log.unlink(missing_ok=True)
        print(f"removed {machine.name}")
    close_network(record)
    if (state / "machines").exists():
        remove_tree(state / "machines")
    if (state / "ssh").exists():
        remove_tree(state / "ssh")
    for file in ("known_hosts", "machines.json", ".lock"):
        (state / file).unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--images", type=lambda text: Path(text).resolve())
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("check")
    verb.add_argument("range")
    verb.add_argument("names", nargs="+")
    verb = verbs.add_parser("install")
    verb.add_argument("packages", nargs="+")
    verb = verbs.add_parser("image")
    verb.add_argument("--mirror", default="")
    verb.add_argument("packages", nargs="+")
    verb = verbs.add_parser("network")
    verb.add_argument("range")
    verb.add_argument("names", nargs="+")
    verb = verbs.add_parser("up")
    verb.add_argument("name")
    verb.add_argument("--memory", required=True)
    verb = verbs.add_parser("supervise")
    verb.add_argument("name")
    verb = verbs.add_parser("wait")
    verb.add_argument("name")
    verb.add_argument("--port", type=int, default=22)
    verb.add_argument("--seconds", type=int, default=120)
    verb = verbs.add_parser("down")
    verb.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    os.umask(0o022)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    match given.verb:
        case "check":
            check(given.state, given.images, given.range, given.names)
        case "install":
            install(given.packages)
        case "image":
            image(given.images, given.mirror, given.packages)
        case "network":
            network(given.state, given.range, given.names)
        case "up":
            up(given.state, given.images, given.name, given.memory)
        case "supervise":
            Machine(given.state, load(given.state), given.name).supervise()
        case "wait":
            wait(given.state, given.name, given.port, given.seconds)
        case "down":
            down(given.state, given.seconds)


if __name__ == "__main__":
    main()
