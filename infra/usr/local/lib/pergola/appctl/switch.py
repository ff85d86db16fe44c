"""Move the traffic from one slot to the other: web and WebSockets at once, by one rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .config import Config
from .releases import record
from .signals import ending_by_exception
from .slots import live_slot, release_in
from .system import point, systemctl, target


def switch(config: Config, slot: str, kind: str) -> None:
    """Send all traffic to a slot. `kind`: deploy, rollback (to an older release) or restart."""
    with jobs_held_back(config) if kind == "deploy" else no_jobs_held_back():
        # the record comes first: cut off here, the machine starts with the slot that was verified
        point(config.live, f"slots/{slot}")
        record(config, kind, release_in(config, slot))
        os.sync()
        finish(config)


def finish(config: Config) -> bool:
    """Make the link that nginx follows the one on disk; return whether it was another.

    After a restart of the machine it is gone; a switch that was cut off left the old one.
    """
    link, slot = config.runtime_directory / "live", live_slot(config)
    if target(link) == slot:
        return False
    point(link, slot)
    return True


@contextmanager
def jobs_held_back(config: Config) -> Iterator[None]:
    """Stop Celery meanwhile, and start it again whatever ends this program.

    The old worker would throw away a job that only the new release knows; jobs wait in the queue. On the way
    back the new worker knows the old release's jobs, so that nothing has to wait.
    """
    units = [f"app-{part}.service" for part in config.celery_parts]
    if not units:
        yield
        return
    with ending_by_exception():
        try:
            systemctl("stop", *units)
            yield
        finally:
            systemctl("start", "--no-block", *units)


@contextmanager
def no_jobs_held_back() -> Iterator[None]:
    yield
