"""Check that a slot serves: its health path answers 200, and each WebSocket process accepts connections."""

import contextlib
import http.client
import socket
import time
from pathlib import Path

from .config import Config
from .journal import handler, last_lines
from .slots import start
from .system import CommandError, properties

PAUSE = 0.2  # seconds between two attempts


def verify(config: Config, slot: str, ready: float, steady: float = 0) -> None:
    """Wait up to `ready` seconds until the slot serves, and then check for `steady` seconds that it stays up.

    The slot `live` is the one that nginx uses. On a host without web processes there is nothing to check.

    CommandError: the slot's last response, or the processes that exited.
    """
    if not config.serves_web:
        return
    deadline = time.monotonic() + ready
    while reason := problem(config, slot, max(1.0, min(10.0, deadline - time.monotonic()))):
        if time.monotonic() > deadline:
            raise CommandError(f"{slot} {reason} (tried for {ready:.0f} s)")
        time.sleep(PAUSE)
    if not steady:
        return
    before = processes(config, slot)
    time.sleep(steady)
    for unit, now in processes(config, slot).items():
        if ended := before[unit] - now:
            raise CommandError(
                f"{slot} answered, and then processes of {unit} exited: {', '.join(sorted(ended))}"
            )
    if reason := problem(config, slot, 10):
        raise CommandError(f"{slot} answered, and then {reason}")


def problem(config: Config, slot: str, seconds: float) -> str:
    """Why the slot does not serve; empty when it does."""
    asked = f"did not answer {config.health_path} with 200"
    try:
        web = http.client.HTTPConnection(config.host_name)
        web.sock = connect(config, slot, "web.sock", seconds)
        web.request("GET", config.health_path, headers={"X-Forwarded-Proto": "https"})
        answer = web.getresponse()
        body = answer.read(500).decode(errors="replace").strip()
        if answer.status != http.HTTPStatus.OK:
            return f"{asked}, but with {answer.status}: {body}"
        for number in range(1, config.websocket_processes + 1):
            connect(config, slot, f"websocket-{number}.sock", seconds).close()
    except (OSError, http.client.HTTPException) as error:
        return f"{asked}, or a WebSocket process accepted no connection: {error!r}"
    return ""


def connect(config: Config, slot: str, name: str, seconds: float) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(seconds)
    client.connect(str(config.runtime_directory / slot / name))
    return client


def processes(config: Config, slot: str) -> dict[str, set[str]]:
    """Process ids by unit of the slot: the main process, and for the web unit also its workers."""
    services = [unit for unit in config.web_units(slot) if unit.endswith(".service")]
    found = {unit: {pid} for unit, pid in properties(services, "MainPID").items()}
    web = services[0]
    (main,) = found[web]
    for children in Path(f"/proc/{main}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has exited
            found[web].update(children.read_text().split())
    return found


def start_and_verify(config: Config, slot: str, ready: float, steady: float) -> str:
    """Start a slot, and verify it. Return which handler serves, and why.

    CommandError: as verify(), with the last lines of its journal.
    """
    began = time.time()
    try:
        start(config, slot)
        verify(config, slot, ready, steady)
    except CommandError as error:
        raise CommandError(f"{error}\nThe journal's last lines:\n{last_lines(slot, began)}") from None
    return handler(slot) if config.serves_web else ""
