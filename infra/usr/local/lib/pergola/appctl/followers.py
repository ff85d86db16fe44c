"""What runs the live release beside the slots: Celery, the application's processes, its timers."""

from pathlib import Path

from .config import Config
from .system import properties, systemctl


def behind(config: Config) -> list[str]:
    """The services that do not run the live release, by the directory in which their main process runs."""
    live = config.live.resolve()

    def runs_live(pid: str) -> bool:
        try:
            return live in Path(f"/proc/{pid}/cwd").readlink().parents
        except OSError:  # it does not run
            return False

    return [unit for unit, pid in properties(config.followers, "MainPID").items() if not runs_live(pid)]


def follow(config: Config, wait: bool = True) -> list[str]:
    """Restart what does not run the live release, and start the timers; return what was restarted."""
    units = behind(config)
    if units:
        systemctl("restart", *([] if wait else ["--no-block"]), *units)
    if config.timers:
        systemctl("start", *(f"app-{name}.timer" for name in config.timers))
    return units
