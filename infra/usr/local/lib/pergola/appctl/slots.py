"""The two slots of a host: a release serves from one, while the next one starts in the other."""

from .config import Config
from .system import CommandError, point, succeeds, systemctl, target


def live_slot(config: Config) -> str:
    """The slot that has the traffic; empty before the first deploy."""
    return target(config.live)


def release_in(config: Config, slot: str) -> str:
    return target(config.home / "slots" / slot)


def idle_slot(config: Config) -> str:
    live = live_slot(config)
    return next(slot for slot in config.slots if slot != live)


def assign(config: Config, slot: str, release: str) -> None:
    """Let an idle slot lead to a release. CommandError if it has the traffic, or the release is not whole."""
    if slot == live_slot(config):
        raise CommandError(f"{slot} has the traffic: a release goes into the other slot")
    if not (config.home / "releases" / release / "release.json").exists():
        raise CommandError(f"there is no whole release {release} in {config.home}/releases")
    point(config.home / "slots" / slot, f"../releases/{release}")


def start(config: Config, slot: str) -> None:
    """Start the slot's web and WebSocket processes again, now and at boot."""
    units = config.web_units(slot)
    if not units:
        return
    # what is enabled counts at boot; systemd takes it in when no traffic waits for it
    systemctl("--quiet", "--no-reload", "enable", *units)
    if not config.live.is_symlink():  # the host's first slot: no other one's stop lets systemd take it in
        systemctl("daemon-reload")
    systemctl("restart", *units)


def stop(config: Config, slot: str, wait: bool = True) -> bool:
    """Let the slot's processes finish what they do, and end them; return whether there was any to end."""
    units = config.web_units(slot)
    if not units or not (succeeds("is-enabled", *units) or has_run(units)):
        return False
    systemctl("--quiet", "--no-reload", "disable", *units)
    systemctl("stop", *([] if wait else ["--no-block"]), *units)
    succeeds("reset-failed", *units)  # says so where none failed
    systemctl("daemon-reload")
    return True


def has_run(units: tuple[str, ...]) -> bool:
    lines = systemctl("list-units", "--legend=no", "--plain", "--all", *units).splitlines()
    return any(line.split()[2] not in ("inactive", "failed") for line in lines)
