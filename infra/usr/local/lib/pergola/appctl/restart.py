"""Restart the live release, with its new environment, units or libraries. No request fails."""

from .config import Config
from .lock import locked
from .signals import ending_by_exception
from .slots import assign, idle_slot, live_slot, release_in, start, stop
from .switch import finish, switch
from .system import CommandError, succeeds, systemctl
from .verify import verify


def restart(config: Config) -> None:
    """The other slot starts first, as in a deploy, and takes the traffic when it serves.

    Units that are stopped stay so.

    CommandError: a deploy runs, or the other slot does not answer; the old one serves then.
    """
    live = live_slot(config)
    if live and succeeds("is-active", f"app-web@{live}.service"):
        try:
            with locked(config, "appctl restart", wait=10):
                by_the_other_slot(config)
        except CommandError as failed:
            raise CommandError(f"{failed}. {live} still serves, as it was") from None
    else:
        systemctl("try-restart", "app-web@*.service", "app-websocket@*.service")
    if config.followers:  # without any, systemctl would be called without a unit
        systemctl("try-restart", *config.followers)


def by_the_other_slot(config: Config) -> None:
    finish(config)  # a switch that was cut off may have left the traffic on the other slot
    live, other = live_slot(config), idle_slot(config)
    stop(config, other)
    with ending_by_exception():
        try:
            assign(config, other, release_in(config, live))
            start(config, other)
            verify(config, other, ready=60, steady=2)
            switch(config, other, "restart")
        finally:
            stop(config, idle_slot(config), wait=live_slot(config) == other)
