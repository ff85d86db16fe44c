"""The part of maintenance mode that concerns the application."""

from .config import Config
from .slots import live_slot
from .system import properties, systemctl


def disconnect(config: Config) -> list[str]:
    """Restart the WebSocket processes that started before the mode was switched on. Return their units.

    Their clients get the close code 1012 and connect again, which nginx answers with 503. Processes are
    selected by their start time, so that a second run after an interruption restarts only the remaining ones.
    """
    slot = live_slot(config)
    if not slot or not config.maintenance_flag.exists():
        return []
    units = [unit for unit in config.web_units(slot) if unit.startswith("app-websocket@")]
    since = int(config.maintenance_flag.stat().st_mtime)  # systemctl prints whole seconds
    # empty for a process that does not run
    started = properties(units, "ActiveEnterTimestamp", "--timestamp=unix")
    before = [unit for unit, time in started.items() if time and int(time.lstrip("@")) < since]
    if before:
        systemctl("try-restart", *before)
    return before
