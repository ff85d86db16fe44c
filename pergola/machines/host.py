"""What this host must have to run machines: checks that change nothing, and the programs that it lacks."""

import os
import shutil
import sys
from pathlib import Path

from pergola.machines import cgroups, network, record
from pergola.machines.system import VAGRANT, attempt, existing, locked, run

DISK_PER_MACHINE = 3 << 30
# a program or a file: the Debian package that contains it
PACKAGES = {
    "gpg": "gpg",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


def lacking() -> list[str]:
    return [package for file, package in PACKAGES.items() if not (shutil.which(file) or Path(file).exists())]


def check(state: Path, images: Path, range_: str, names: list[str]) -> None:
    """Refuse a host that cannot run these machines. Print the packages that it lacks, one on each line."""
    tried = attempt("unshare", "-muinpf", "--mount-proc", "true")
    if tried.returncode:
        sys.exit(f"This host refuses namespaces, as a container does ({tried.stderr.strip()}): {VAGRANT}.")
    unified = cgroups.unified()
    if not unified or not os.access(unified, os.W_OK):
        sys.exit(f"This host has no writable cgroup2 file system: {VAGRANT}.")
    new = [name for name in names if not (state / "machines" / name).exists()]
    free = min(shutil.disk_usage(existing(path)).free for path in (state, images))
    if free < DISK_PER_MACHINE * len(new):
        needed = DISK_PER_MACHINE * len(new) >> 30
        sys.exit(
            f"{state} has {free / (1 << 30):.1f} of {needed} GiB: free some, set PERGOLA_STATE, or {VAGRANT}."
        )
    packages = lacking()
    if packages and not shutil.which("apt-get"):
        sys.exit(f"This host lacks {' '.join(packages)} (as Debian calls them): install them, or {VAGRANT}.")
    known = record.load(state) or record.new()
    if shutil.which("ip") and not network.own_bridge(known):
        next(network.free_networks(known, range_))
    print(*packages, sep="\n", end="\n" if packages else "")


def install(packages: list[str]) -> None:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    options = ["--yes", "--quiet", "--no-install-recommends", "--option=DPkg::Lock::Timeout=120"]
    with locked(Path("/var/lib/apt")):  # `apt-get update` fails while another one is running
        attempt("apt-get", "--quiet", "update")  # one broken source of the host's need not matter
        run("apt-get", "install", *options, *packages)
