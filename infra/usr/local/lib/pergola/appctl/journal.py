"""Lines that a slot's web and WebSocket processes wrote to the journal."""

import subprocess

from .system import properties, run


def handler(slot: str) -> str:
    """Which handler serves and why, as the slot's web servers logged it at their last start; or empty."""
    unit = f"app-web@{slot}.service"
    invocation = properties([unit], "InvocationID")[unit]
    if not invocation:
        return ""
    command = ["journalctl", "--quiet", "--output=cat", "--reverse", "--lines=1", f"--unit={unit}"]
    command += ["--grep=handler serves", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    # its exit status is 1 if there is no such line
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def last_lines(slot: str, since: float, count: int = 25) -> str:
    """The last lines that the slot's processes wrote since a time in seconds of the epoch."""
    options = ("--no-pager", "--output=cat", f"--lines={count}", f"--since=@{int(since)}")
    # its exit status is 1 if no unit has run yet
    return run("journalctl", *options, f"--unit=app-web*@{slot}*", check=False).strip()
