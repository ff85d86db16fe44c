"""The services that run the live release outside the slots: Celery and the application's own processes."""

from pathlib import Path

from .config import Config
from .system import properties, systemctl


def outdated(config: Config) -> list[str]:
    """The services whose main process does not run in the live release's directory."""
    live = config.live.resolve()

    def runs_live(pid: str) -> bool:
        try:
            return live in Path(f"/proc/{pid}/cwd").readlink().parents
        except OSError:  # it does not run
            return False

    return [unit for unit, pid in properties(config.followers, "MainPID").items() if not runs_live(pid)]


def follow(config: Config, rollback: bool = False) -> list[str]:
    """Restart services that do not run the live release, and start the timers; return the restarted units.

    `rollback`: do not wait for running jobs, and leave the timers as they are.
    """
    units = outdated(config)
    if units:
        systemctl("restart", *(["--no-block"] if rollback else []), *units)
    if config.timers and not rollback:
        systemctl("start", *(f"app-{name}.timer" for name in config.timers))
    return units
