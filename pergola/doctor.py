"""What this machine can run, and what each way to run it lacks. Changes nothing."""

import ipaddress
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pergola import inventory
from pergola.inventory import Hosts
from pergola.machines import host
from pergola.machines.system import VAGRANT, existing

VAGRANT_VERSION = (2, 3)
GIB = 1 << 30
# links whose networks exist for machines, and stay when these are removed
HYPERVISORS = re.compile(r"vboxnet|virbr|vmnet|vnic|pergola-vagrant")


@dataclass(frozen=True)
class Provider:
    """One of Vagrant's providers."""

    systems: list[str]  # that it runs on, as platform.system() names them
    command: list[str]  # fails if the provider cannot be used
    plugin: str  # that Vagrant needs for it; empty for none
    get: str  # how to install it
    fix: str = "start it, or install it anew"  # if the command fails


PROVIDERS = {
    "libvirt": Provider(
        ["Linux"],
        ["virsh", "--connect", "qemu:///system", "version"],
        "vagrant-libvirt",
        "on Debian apt-get install vagrant-libvirt libvirt-daemon-system, and adduser $USER libvirt",
        "sudo systemctl start libvirtd; if that runs, sudo adduser $USER libvirt, and log in anew",
    ),
    "virtualbox": Provider(
        ["Linux", "Darwin", "Windows"], ["VBoxManage", "list", "hostinfo"], "", "https://www.virtualbox.org"
    ),
    "vmware_desktop": Provider(
        ["Linux", "Darwin", "Windows"],
        ["vmrun", "list"],
        "vagrant-vmware-desktop",
        "VMware Fusion or Workstation and the Vagrant VMware utility",
    ),
    "parallels": Provider(["Darwin"], ["prlctl", "--version"], "vagrant-parallels", "Parallels Desktop Pro"),
    "qemu": Provider(["Darwin"], ["qemu-system-aarch64", "--version"], "vagrant-qemu", "brew install qemu"),
    "lxc": Provider(
        ["Linux"], ["lxc-create", "--version"], "vagrant-lxc", "on Debian 12 apt-get install vagrant-lxc lxc"
    ),
}


class Finding(NamedTuple):
    text: str  # what was seen, or the fix
    ok: bool


def output_of(*command: str) -> str | None:
    """What a program printed; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def system() -> Finding:
    match platform.system():
        case "Darwin":
            name = f"macOS {platform.mac_ver()[0]}"
        case "Linux":
            name = linux_name()
        case _:
            name = platform.platform()
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        return Finding(f"{name} on {machine}: Debian 13's packages are tried on amd64 and arm64 alone", False)
    return Finding(f"{name}, {machine}, {os.cpu_count()} cores", True)


def linux_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def programs() -> Finding:
    missing = [name for name in ("make", "ssh", "ssh-keygen") if not shutil.which(name)]
    if missing:
        return Finding(
            f"{' '.join(missing)} is missing: install it, on Debian make and openssh-client", False
        )
    git = output_of("git", "--version")
    return Finding(
        f"Python {platform.python_version()}, {git or 'no git (releases carry no revision)'}", True
    )


def memory(hosts: Hosts) -> Finding:
    """Free memory where the system reports it, or else all memory."""
    wanted = sum(int(one["host_memory_mb"]) for one in hosts.values()) << 20
    if Path("/proc/meminfo").exists():
        lines = [line.split(":") for line in Path("/proc/meminfo").read_text().splitlines()]
        fields = {name: value.split()[0] for name, value in lines}
        free, word = int(fields["MemAvailable"]) << 10, "free"
    else:
        free, word = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "in all"
    text = f"{free / GIB:.1f} GiB {word}, the machines take up to {wanted / GIB:.1f}"
    fix = ": end something, or lower machines_memory (make up) or host_memory_mb (vagrant up)"
    return Finding(text, True) if free >= wanted else Finding(text + fix, False)


def disk(hosts: Hosts, place: Path) -> Finding:
    free = shutil.disk_usage(existing(place)).free
    wanted = host.DISK_PER_MACHINE * len(hosts)
    text = f"{free / GIB:.1f} GiB free at {place}, the machines take {wanted / GIB:.0f}"
    return Finding(text, True) if free >= wanted else Finding(f"{text}: free some", False)


def port(number: int) -> Finding:
    with socket.socket() as one:
        # as a server would: what a closed connection left does not count
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", number))
        except OSError:
            return Finding(f"port {number} is taken: make dev PORT={number + 1}", False)
    return Finding(f"port {number} is free", True)


def nspawn(hosts: Hosts) -> Finding:
    """Run the check of the role machines, and pass its message on."""
    if platform.system() != "Linux":
        return Finding(f"systemd-nspawn needs Linux: {VAGRANT}", False)
    first = next(iter(hosts.values()))
    if first.get("machines_provider") != "nspawn":
        env = first["environment_name"]
        return Finding(f"ENV={env} is made of no systemd-nspawn machines: vagrant up", False)
    state = Path(first["environment_state_directory"])
    images = Path(os.environ.get("PERGOLA_IMAGES") or state.parent / "images")
    # -B: root writes no compiled files into the checkout, which its owner could not delete
    command = [sys.executable, "-B", "-m", "pergola.machines", f"--state={state}", f"--images={images}"]
    command += ["check", first["machines_networks"], *hosts]
    if os.geteuid():
        if not shutil.which("sudo"):
            return Finding(f"systemd-nspawn needs root, or sudo: {VAGRANT}", False)
        if output_of("sudo", "-n", "true") is None:
            return Finding("systemd-nspawn; not tried, as sudo asks for a password (sudo -v first)", True)
        command = ["sudo", "-n", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return Finding(done.stderr.strip().splitlines()[-1], False)
    lacking = done.stdout.split()
    text = f"systemd-nspawn, {shutil.disk_usage(existing(state)).free / GIB:.1f} GiB of disk free"
    return Finding(text + (f"; it will install {' '.join(lacking)}" if lacking else ""), True)


def vagrant() -> tuple[Finding, list[str]]:
    """Its version, and the plugins that it has."""
    version = output_of("vagrant", "--version")
    if not version:
        get = "apt-get install vagrant, or https://developer.hashicorp.com/vagrant/install"
        return Finding(f"not installed: {get}", False), []
    number = version.split()[-1]
    if tuple(map(int, number.split(".")[:2])) < VAGRANT_VERSION:
        oldest = ".".join(map(str, VAGRANT_VERSION))
        return Finding(f"{version} is older than {oldest}: install a newer one", False), []
    return Finding(version, True), (output_of("vagrant", "plugin", "list") or "").split()


def provider(name: str, plugins: list[str]) -> Finding:
    one = PROVIDERS[name]
    if platform.system() not in one.systems:
        return Finding(f"runs on {', '.join(one.systems).replace('Darwin', 'macOS')}", False)
    if not shutil.which(one.command[0]):
        return Finding(f"{one.command[0]} is missing: {one.get}", False)
    if reason := refusal(name):
        return Finding(reason, False)
    if one.plugin and one.plugin not in plugins:
        return Finding(f"the plugin is missing: vagrant plugin install {one.plugin}", False)
    if name == "libvirt" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        slow = "without /dev/kvm, so some 20 times slower: enable virtualisation, and adduser $USER kvm"
        return Finding(slow, True)
    return Finding("ready", True)


def refusal(name: str) -> str:
    """Why the provider's command fails: a service that does not run, a group to join. Empty if it works."""
    one = PROVIDERS[name]
    if not shutil.which(one.command[0]):
        return ""  # Vagrant may find its provider elsewhere
    try:
        done = subprocess.run(one.command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        if done.returncode == 0:
            return ""
        reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    return f"`{' '.join(one.command)}` fails ({reason}): {one.fix}"


def show(what: str, found: Finding) -> bool:
    print(f"{what:16}  {'ok' if found.ok else 'no'}  {found.text}")
    return found.ok


def not_made(hosts: Hosts) -> Hosts:
    """The hosts that Vagrant has no machine of; it keeps the id of each that it made."""
    return {name: one for name, one in hosts.items() if not list(Path(one["vagrant_machine"]).glob("*/id"))}


def collisions(hosts: Hosts) -> Iterator[str]:
    """Ports and networks of the machines that are in use on this host; a line for each."""
    file = "hosts.yml of the environment"
    routes = json.loads(output_of("ip", "-json", "-4", "route") or "[]")
    taken = [
        (ipaddress.ip_network(route["dst"], strict=False), route["dev"])
        for route in routes
        if route["dst"] != "default" and not HYPERVISORS.match(route["dev"])
    ]
    for one in hosts.values():
        if "vagrant_ssh_port" in one:
            for number in (one["vagrant_ssh_port"], one["site_http_port"], one["site_https_port"]):
                if not port(int(number)).ok:
                    yield f"port {number} is taken: write another one in {file}"
        else:
            address = ipaddress.ip_address(one["ansible_host"])
            for network, device in taken:
                if address in network:
                    yield f"{address} is in the network {network} of {device}: write another one in {file}"


def room(hosts: Hosts, home: Path, provider: str) -> None:
    """Exit with what this machine lacks for the Vagrant machines that are not made yet, if anything."""
    wanted = not_made(hosts)
    wrong = [found.text for found in (memory(wanted), disk(wanted, home)) if not found.ok]
    if reason := refusal(provider):
        wrong.insert(0, reason)
    sys.exit("\n".join([*wrong, *collisions(wanted)]) or 0)


def examine(env: str, provider_of_room: str | None) -> None:
    """Print a line for each thing, and exit with 0 if one of the ways to make machines is open.

    ENV is what `make up` and `vagrant up` would make; for local, Vagrant's environment is called vagrant.
    With a provider, check only that it can be used and that there is room for its machines.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    warnings.simplefilter("ignore")  # Ansible's, about being loaded twice
    local = inventory.load(env)[1]
    virtual = local if env != "local" else inventory.load("vagrant")[1]
    home = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")
    if provider_of_room:
        room(virtual, home, provider_of_room)

    needed = [show("system", system()), show("programs", programs()), show("memory", memory(local))]
    show("make dev", port(int(os.environ.get("PORT") or 8000)))
    ways = [show("make up", nspawn(local))]
    version, plugins = vagrant()
    if show("vagrant up", version):
        enough = show("  disk", disk(virtual, home))
        ways += [show(f"  {name}", provider(name, plugins)) and enough for name in PROVIDERS]
    sys.exit(not (all(needed) and any(ways)))
