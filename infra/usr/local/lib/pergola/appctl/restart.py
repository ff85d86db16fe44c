"""Restart the live release to apply a new environment, units or libraries. No request fails."""

from .config import Config
from .lock import LockedError, one_deploy, only_one
from .signals import ending_by_exception
from .slots import idle_slot, live_slot, prepare, release_in, start, stop
from .switch import finish, switch
from .system import CommandError, succeeds, systemctl
from .verify import verify


def restart(config: Config) -> str:
    """Start the live release in the other slot, as a deploy does, and send it the traffic when it serves.

    Units that do not run are not started. Return the slot that has the traffic now; empty if none serves.

    CommandError: a deploy runs, or the other slot does not serve. The old one continues to serve.
    """
    live, who, serves = live_slot(config), "appctl restart", ""
    if live and succeeds("is-active", f"app-web@{live}.service"):
        try:
            with one_deploy(config, who, wait=10), only_one("change", config, who):
                serves = in_the_other_slot(config)
        except LockedError as error:
            raise CommandError(f"a deploy runs: {error}. Run appctl restart after it") from None
        except CommandError as error:
            raise CommandError(f"{error}. {live} still serves") from None
    else:
        systemctl("try-restart", "app-web@*.service", "app-websocket@*.service")
    if config.followers:
        systemctl("try-restart", *config.followers)
    return serves


def in_the_other_slot(config: Config) -> str:
    finish(config)  # an interrupted switch may have left the traffic on the other slot
    live, other = live_slot(config), idle_slot(config)
    with ending_by_exception():
        try:
            prepare(config, other, release_in(config, live))
            start(config, other)
            verify(config, other, ready=60, steady=2)
            switch(config, other, "restart")
        finally:
            stop(config, idle_slot(config), wait=live_slot(config) == other)
    return other
