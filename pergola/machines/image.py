"""The base image: a minimal Debian 13, built once by mmdebstrap, of which each machine is a copy."""

import hashlib
from pathlib import Path

from pergola.machines.system import locked, remove_tree, run

# What a copy must not share with another: host keys, machine-id, name servers, name.
HOOK = """set -e
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf" "$1/etc/hostname"
: > "$1/etc/machine-id"
chroot "$1" systemctl --quiet enable systemd-networkd
rm -rf "$1"/var/cache/apt/archives/*.deb"""


def sources(mirror: str) -> list[str]:
    """apt's sources for a site's own mirror; none lets mmdebstrap choose."""
    if not mirror:
        return []
    return [
        f"deb {mirror} trixie main",
        f"deb {mirror} trixie-updates main",
        f"deb {mirror}-security trixie-security main",
    ]


def command(packages: list[str]) -> list[str]:
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        f"--customize-hook={HOOK}",
        "trixie",
    ]


def name(mirror: str, packages: list[str]) -> str:
    """The image's name contains a hash of all that it is built from, so that a change builds another one."""
    recipe = hashlib.sha256(repr((command(packages), sources(mirror))).encode()).hexdigest()
    return f"debian-13-{recipe[:12]}"


def current(images: Path) -> Path:
    return next(images.glob("debian-13-*"))


def build(images: Path, mirror: str, packages: list[str]) -> None:
    """Build the image unless it exists, and remove the images of other recipes."""
    images.mkdir(parents=True, exist_ok=True)
    images.chmod(0o700)  # it contains setuid programs
    wanted = images / name(mirror, packages)
    with locked(images / ".lock"):
        if wanted.exists():
            return
        for leftover in images.glob(".building-*"):
            remove_tree(leftover)
        aside = images / f".building-{wanted.name}"
        run(*command(packages), str(aside), *sources(mirror))
        aside.rename(wanted)
        for old in images.glob("debian-13-*"):
            if old != wanted:
                remove_tree(old)
        print(f"built {wanted}")
