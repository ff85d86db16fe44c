"""systemd and the file system, as the other modules use them."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path


class CommandError(Exception):
    """A command failed. The message says why and what to do."""


def run(*arguments: str | Path, check: bool = True) -> str:
    """Return standard output. CommandError: the program's own message if its exit status is not 0."""
    done = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise CommandError(f"{arguments[0]} {arguments[1]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def systemctl(*arguments: str) -> str:
    return run("systemctl", *arguments)


def succeeds(*arguments: str) -> bool:
    """Whether the exit status of a systemctl command is 0."""
    return (
        subprocess.run(["systemctl", "--quiet", *arguments], capture_output=True, check=False).returncode == 0
    )


def properties(units: Iterable[str], name: str, *options: str) -> dict[str, str]:
    """A property of each unit; empty where a unit has none."""
    units = list(units)
    if not units:
        return {}
    # systemctl prints an empty line between two units
    values = systemctl("show", *options, f"--property={name}", "--value", *units).split("\n\n")
    return {unit: value.strip() for unit, value in zip(units, values, strict=True)}


def point(link: Path, target: str) -> None:
    """Replace a link by one rename, so that a reader finds either the old or the new target."""
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, survive a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def target(link: Path) -> str:
    """The name that a link points to; empty if there is no link."""
    try:
        return link.readlink().name
    except FileNotFoundError:
        return ""


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    sync(new)
    new.replace(path)
