"""What is written into a machine's root directory, and the file of all machines' host keys."""

import contextlib
import re
import shutil
import sys
from pathlib import Path

from pergola.machines.nspawn import Machine
from pergola.machines.record import Record
from pergola.machines.system import locked, remove_tree, run, write

RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
AUTHORITIES = Path("/usr/local/share/ca-certificates")


def hosts(name: str) -> str:
    return f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n"


def network(address: str, gateway: str) -> str:
    """For systemd-networkd in the machine."""
    return f"[Match]\nName=host0\n\n[Network]\nAddress={address}/24\nGateway={gateway}\nIPv6AcceptRA=no\n"


def name_servers(resolvers: tuple[Path, ...] = RESOLVERS) -> str:
    """The host's name servers that a machine can reach: none on loopback, but those that it forwards to."""
    for file in resolvers:
        with contextlib.suppress(FileNotFoundError):
            lines = file.read_text().splitlines()
            kept = [line for line in lines if re.match(r"(nameserver|search|options)\s", line)]
            kept = [line for line in kept if not re.match(r"nameserver\s+(127\.|::1)", line)]
            if any(line.startswith("nameserver") for line in kept):
                return "\n".join(kept) + "\n"
    sys.exit(
        "Machines cannot reach this host's name servers, all on its loopback: name one in /etc/resolv.conf."
    )


def create(machine: Machine, image: Path, key: str) -> None:
    """Copy the image, with a name, host keys and root's authorized key of the machine's own."""
    aside = machine.home.with_name(f".{machine.name}.new")
    if aside.exists():
        remove_tree(aside)
    aside.mkdir(parents=True, mode=0o700)
    machine.home.parent.chmod(0o700)  # it contains setuid programs, and files of other users' numbers
    root = aside / "root"
    run("cp", "--archive", "--reflink=auto", str(image), str(root))
    run("ssh-keygen", "-q", "-A", "-f", str(root))
    for public in (root / "etc/ssh").glob("ssh_host_*.pub"):
        public.write_text(" ".join(public.read_text().split()[:2]) + f" root@{machine.name}\n")
    (root / "etc/hostname").write_text(f"{machine.name}\n")
    (root / "etc/hosts").write_text(hosts(machine.name))
    # a new network namespace inherits its host's setting; a server has Debian's
    (root / "etc/sysctl.d/10-forwarding.conf").write_text("net.ipv4.ip_forward = 0\n")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (root / "root/.ssh/authorized_keys").write_text(key)
    for authority in AUTHORITIES.rglob("*.crt"):
        shutil.copy(authority, root / str(AUTHORITIES).lstrip("/"))
    run("chroot", str(root), "update-ca-certificates")
    aside.rename(machine.home)
    print(f"{machine.name}: made")


def prepare(machine: Machine) -> None:
    """Write what may be different at each boot."""
    folder = machine.root / "etc/systemd/network"
    write(folder / "10-host0.network", network(machine.address, str(machine.network[1])))
    write(machine.root / "etc/resolv.conf", name_servers())


def known_hosts(state: Path, record: Record) -> None:
    """Write the host keys of all machines, for ssh on the control machine."""
    with locked(state / ".lock"):
        lines = []
        for name, address in sorted(record.addresses.items()):
            for key in sorted((state / "machines" / name / "root/etc/ssh").glob("ssh_host_*.pub")):
                lines.append(" ".join([address, *key.read_text().split()[:2]]) + "\n")
        write(state / "known_hosts", "".join(lines))
