"""The two slots of a host: a release serves from one, while the next one starts in the other."""

from .config import Config
from .system import CommandError, point, run, succeeds, systemctl, target


def live_slot(config: Config) -> str:
    """The slot that has the traffic; empty before the first deploy."""
    return target(config.live)


def release_in(config: Config, slot: str) -> str:
    return target(config.home / "slots" / slot)


def idle_slot(config: Config) -> str:
    live = live_slot(config)
    return next(slot for slot in config.slots if slot != live)


def listed(config: Config) -> dict[str, str]:
    """The live slot and its release, empty before the first deploy, and the idle slot and its release."""
    live, idle = live_slot(config), idle_slot(config)
    return {
        "live": live,
        "live_release": release_in(config, live) if live else "",
        "idle": idle,
        "idle_release": release_in(config, idle),
    }


def prepare(config: Config, slot: str, release: str) -> bool:
    """Stop the processes of an idle slot, and link it to a release. Return whether any process ran.

    CommandError: the slot has the traffic, or the release does not exist or cannot be served.
    """
    if slot == live_slot(config):
        raise CommandError(f"{slot} has the traffic: a release goes into the other slot")
    directory = config.home / "releases" / release
    if not (directory / "release.json").exists():
        raise CommandError(f"there is no complete release {release} in {config.home}/releases")
    if config.serves_web and not (directory / "venv/bin" / config.http_server).exists():
        raise CommandError(
            f"release {release} has no {config.http_server}, which the web unit of this host starts: set "
            "app_http_server to gunicorn, which every release has (or to a server that this one has), run "
            "make converge, and repeat this command"
        )
    ran = stop(config, slot)
    point(config.home / "slots" / slot, f"../releases/{release}")
    return ran


def publish(config: Config, slot: str) -> None:
    """Link the slot's static files into the directory that nginx serves, beside those of other releases.

    Their names contain a hash of their content, so that pages of each release find their own.
    """
    static = config.home / "slots" / slot / "static"
    run("cp", "--recursive", "--link", "--force", f"{static}/.", config.home / "static")


def start(config: Config, slot: str) -> None:
    """Publish the slot's static files and start its web and WebSocket processes, now and at boot."""
    units = config.web_units(slot)
    if not units:
        return
    publish(config, slot)
    # no reload while requests wait: systemd reads enabled units at boot and when the other slot is stopped
    systemctl("--quiet", "--no-reload", "enable", *units)
    if not config.live.is_symlink():  # a host's first slot: no other slot will be stopped
        systemctl("daemon-reload")
    systemctl("restart", *units)


def stop(config: Config, slot: str, wait: bool = True) -> bool:
    """Let the slot's processes finish their requests, and stop them. Return whether any process ran."""
    units = config.web_units(slot)
    if not units or not (succeeds("is-enabled", *units) or has_run(units)):
        return False
    systemctl("--quiet", "--no-reload", "disable", *units)
    systemctl("stop", *([] if wait else ["--no-block"]), *units)
    succeeds("reset-failed", *units)  # this fails if no unit failed
    systemctl("daemon-reload")
    return True


def has_run(units: tuple[str, ...]) -> bool:
    lines = systemctl("list-units", "--legend=no", "--plain", "--all", *units).splitlines()
    return any(line.split()[2] not in ("inactive", "failed") for line in lines)
