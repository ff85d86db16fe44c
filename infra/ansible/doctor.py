"""Say what this machine can run, and what each thing that it cannot wants: doctor.py ENV [--room=PROVIDER]

A line each: what, ok or no, and what was seen or the fix. ENV is what `make up` and `vagrant up` would make;
where it is local, Vagrant's is called vagrant. Leaves with 0 where one of the ways is open. With --room, it
says only what this machine lacks to carry the Vagrant machines that are not made yet, and whether their
provider lets us in. Changes nothing.
"""

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
from pathlib import Path

from pergola import inventory
from pergola.machines import host as machines
from pergola.machines.system import VAGRANT as USE_VAGRANT
from pergola.machines.system import existing

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VAGRANT = (2, 3)
GIB = 1 << 30
# links whose networks are there for machines, and stay when these are gone
HYPERVISORS = re.compile(r"vboxnet|virbr|vmnet|vnic|pergola-vagrant")


class Provider:
    """One of Vagrant's: where it runs, a command that tries it, its plugin, how to get it, and into it."""

    def __init__(self, systems, command, plugin, get, mend="start it, or install it anew"):
        self.systems, self.command, self.plugin, self.get, self.mend = systems, command, plugin, get, mend


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


def said(*command):
    """What a program printed; None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# Each gives a text, and whether that is well.


def system():
    names = {"Darwin": lambda: f"macOS {platform.mac_ver()[0]}", "Linux": lambda: linux_name()}
    name = names.get(platform.system(), platform.platform)()
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        return f"{name} on {machine}: Debian 13's packages are tried on amd64 and arm64 alone", False
    return f"{name}, {machine}, {os.cpu_count()} cores", True


def linux_name():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def programs():
    missing = [name for name in ("make", "ssh", "ssh-keygen") if not shutil.which(name)]
    if missing:
        return f"{' '.join(missing)} is missing: install it, on Debian make and openssh-client", False
    git = said("git", "--version")
    return f"Python {platform.python_version()}, {git or 'no git (releases carry no revision)'}", True


def memory(hosts):
    """Free memory where the system tells it, else all there is."""
    wanted = sum(int(host["host_memory_mb"]) for host in hosts.values()) << 20
    if Path("/proc/meminfo").exists():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, word = int(lines["MemAvailable"].split()[0]) << 10, "free"
    else:
        free, word = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "in all"
    text = f"{free / GIB:.1f} GiB {word}, the machines take up to {wanted / GIB:.1f}"
    fix = ": end something, or lower machines_memory (make up) or host_memory_mb (vagrant up)"
    return (text, True) if free >= wanted else (text + fix, False)


def disk(hosts, place):
    free = shutil.disk_usage(existing(place)).free
    wanted = machines.DISK_PER_MACHINE * len(hosts)
    text = f"{free / GIB:.1f} GiB free at {place}, the machines take {wanted / GIB:.0f}"
    return (text, True) if free >= wanted else (f"{text}: free some", False)


def port(number):
    with socket.socket() as one:
        # as a server would: what a closed connection left does not count
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", number))
        except OSError:
            return f"port {number} is taken: make dev PORT={number + 1}", False
    return f"port {number} is free", True


def nspawn(hosts):
    """What the role machines would refuse, in its words; it only looks."""
    if platform.system() != "Linux":
        return f"systemd-nspawn needs Linux: {USE_VAGRANT}", False
    first = next(iter(hosts.values()))
    if first.get("machines_provider") != "nspawn":
        return f"ENV={first['environment_name']} is made of no systemd-nspawn machines: vagrant up", False
    state = Path(first["state_directory"])
    images = Path(os.environ.get("PERGOLA_IMAGES") or state.parent / "images")
    command = [sys.executable, "-B", "-m", "pergola.machines", f"--state={state}", f"--images={images}"]
    command += ["check", first["machines_networks"], *hosts]
    if os.geteuid():
        if not shutil.which("sudo"):
            return f"systemd-nspawn needs root, or sudo: {USE_VAGRANT}", False
        if said("sudo", "-n", "true") is None:
            return "systemd-nspawn; not tried, as sudo asks for a password (sudo -v first)", True
        command = ["sudo", "-n", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return done.stderr.strip().splitlines()[-1], False
    lacking = done.stdout.split()
    text = f"systemd-nspawn, {shutil.disk_usage(existing(state)).free / GIB:.1f} GiB of disk free"
    return text + (f"; it will install {' '.join(lacking)}" if lacking else ""), True


def vagrant():
    """Its version and plugins; a text and None where it cannot be used."""
    version = said("vagrant", "--version")
    if not version:
        return (
            "not installed: apt-get install vagrant, or https://developer.hashicorp.com/vagrant/install",
            None,
        )
    number = version.split()[-1]
    if tuple(map(int, number.split(".")[:2])) < VAGRANT:
        return f"{version} is older than {'.'.join(map(str, VAGRANT))}: install a newer one", None
    return version, (said("vagrant", "plugin", "list") or "").split()


def provider(name, plugins):
    one = PROVIDERS[name]
    if platform.system() not in one.systems:
        return f"runs on {', '.join(one.systems).replace('Darwin', 'macOS')}", False
    if not shutil.which(one.command[0]):
        return f"{one.command[0]} is missing: {one.get}", False
    if reason := refusal(name):
        return reason, False
    if one.plugin and one.plugin not in plugins:
        return f"the plugin is missing: vagrant plugin install {one.plugin}", False
    if name == "libvirt" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "without /dev/kvm, so some 20 times slower: enable virtualisation, and adduser $USER kvm", True
    return "ready", True


def refusal(name):
    """What the provider's command says where it fails: a service that does not run, a group to join."""
    one = PROVIDERS[name]
    if not shutil.which(one.command[0]):
        return ""  # Vagrant may know better where its provider is
    try:
        done = subprocess.run(one.command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        if done.returncode == 0:
            return ""
        reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error
    return f"`{' '.join(one.command)}` fails ({reason}): {one.mend}"


def show(what, found):
    text, well = found
    print(f"{what:16}  {'ok' if well else 'no'}  {text}")
    return well


def not_made(hosts):
    """Those that Vagrant has no machine of, which it keeps by an id."""
    return {
        name: host for name, host in hosts.items() if not list(Path(host["vagrant_machine"]).glob("*/id"))
    }


def collisions(hosts):
    """Ports and networks that the machines would share with what is here already; a line each."""
    file = "hosts.yml of the environment"
    routes = json.loads(said("ip", "-json", "-4", "route") or "[]")
    taken = [
        (ipaddress.ip_network(route["dst"], strict=False), route["dev"])
        for route in routes
        if route["dst"] != "default" and not HYPERVISORS.match(route["dev"])
    ]
    for host in hosts.values():
        if "vagrant_ssh_port" in host:
            for number in (host["vagrant_ssh_port"], host["site_http_port"], host["site_https_port"]):
                if not port(int(number))[1]:
                    yield f"port {number} is taken: write another one in {file}"
        else:
            address = ipaddress.ip_address(host["ansible_host"])
            for network, device in taken:
                if address in network:
                    yield f"{address} is in the network {network} of {device}: write another one in {file}"


def main():
    env, *options = sys.argv[1:]
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    warnings.simplefilter("ignore")  # Ansible's, about being loaded twice
    local = inventory.load(env)[1]
    virtual = local if env != "local" else inventory.load("vagrant")[1]
    home = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")
    if options:
        wanted = not_made(virtual)
        wrong = [text for text, well in (memory(wanted), disk(wanted, home)) if not well]
        if reason := refusal(options[0].removeprefix("--room=")):
            wrong.insert(0, reason)
        sys.exit("\n".join([*wrong, *collisions(wanted)]) or 0)

    well = [show("system", system()), show("programs", programs()), show("memory", memory(local))]
    show("make dev", port(int(os.environ.get("PORT") or 8000)))
    doors = [show("make up", nspawn(local))]
    version, plugins = vagrant()
    if show("vagrant up", (version, plugins is not None)):
        room = show("  disk", disk(virtual, home))
        doors += [show(f"  {name}", provider(name, plugins)) and room for name in PROVIDERS]
    sys.exit(not (all(well) and any(doors)))


if __name__ == "__main__":
    main()
