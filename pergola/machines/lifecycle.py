"""Take a network, make and boot machines, wait for them, and remove them all."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

from pergola.machines import files, image, record
from pergola.machines import network as networks
from pergola.machines.nspawn import Machine
from pergola.machines.record import Record
from pergola.machines.system import attempt, locked, remove_tree, wait_for


def recorded(state: Path) -> Record:
    known = record.load(state)
    if known is None:
        sys.exit(f"{state} has no machines.json: take a network first.")
    return known


def machine(state: Path, name: str) -> Machine:
    return Machine(state, recorded(state), name)


def network(state: Path, range_: str, names: list[str]) -> None:
    """Take a free network, unless this environment has one, and give each machine an address of it."""
    with networks.lock(), locked(state / ".lock"):
        known = record.load(state) or record.new()
        record.save(state, known)
        if not networks.own_bridge(known):
            # machines that still run are connected to a bridge that no longer exists
            for name in known.addresses:
                Machine(state, known, name).kill()
            taken = networks.claim(known, range_)
            known.move(str(taken))
            print(f"took {taken}")
        record.save(state, known)
        if networks.open_way_out(known.subnet):
            print(f"opened {networks.bridge_name(known.subnet)}")
        known.allocate(names)
        if record.save(state, known):
            print("wrote machines.json")


def up(state: Path, images: Path, name: str, memory: str) -> None:
    """Make the machine unless it exists, and boot it unless it runs."""
    known = recorded(state)
    one = Machine(state, known, name)
    if not one.home.exists():
        with locked(images / ".lock", fcntl.LOCK_SH):
            files.create(one, image.current(images), (state / "ssh/id_ed25519.pub").read_text())
    files.known_hosts(state, known)
    if one.running():
        one.limit_memory(memory)
        return
    one.kill()
    one.group.mkdir()
    if not one.limit_memory(memory):
        print(f"note: this host cannot limit {name} to {memory} of memory (no memory controller)")
    files.prepare(one)
    one.start()
    print(f"{name}: booting, its console is {one.log}")


def wait(state: Path, name: str, port: int, seconds: int) -> None:
    """Wait until the machine has booted and its sshd answers; name the units that failed to start."""
    one = machine(state, name)

    def inside(*command: str) -> str:
        init = one.init()
        if not init:
            return ""
        enter = ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        return attempt(*enter, *command).stdout.strip()

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((one.address, port), 2) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def booted() -> str | None:
        if not one.pids("watch"):
            sys.exit(f"{name} ended while it booted: read {one.log}.")
        now = inside("systemctl", "is-system-running")
        return now if now in ("running", "degraded") and answers() else None

    now = wait_for(booted, seconds, 0.2)
    if not now:
        sys.exit(f"{name} has not booted in {seconds} s: read {one.log}.")
    if now == "degraded":
        failed = inside("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        print(f"note: {name} is up, but failed:", *[line.split()[0] for line in failed.splitlines()])


def down(state: Path, seconds: int) -> None:
    """Stop and remove all machines, their data and their network; nothing if there is no record."""
    known = record.load(state)
    if not known:
        return
    machines = [Machine(state, known, name) for name in known.addresses]
    for init in filter(None, [one.init() for one in machines]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGRTMIN + 4)  # systemd's `poweroff`
    wait_for(lambda: not any(one.pids("watch") for one in machines), seconds)
    for one in machines:
        one.kill()
        one.log.unlink(missing_ok=True)
        print(f"removed {one.name}")
    networks.close(known)
    if (state / "machines").exists():
        remove_tree(state / "machines")
    if (state / "ssh").exists():
        remove_tree(state / "ssh")
    for file in ("known_hosts", "machines.json", ".lock"):
        (state / file).unlink(missing_ok=True)
