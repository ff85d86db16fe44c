"""Move the traffic from one slot to the other: web and WebSockets at once, by one rename."""

from collections.abc import Iterator
from contextlib import contextmanager

from .config import Config
from .followers import follow
from .releases import record
from .signals import ending_by_exception
from .slots import live_slot, release_in
from .system import CommandError, point, sync, systemctl, target
from .verify import verify


def switch(config: Config, slot: str, kind: str, ready: float = 30) -> None:
    """Send all traffic to a slot. `kind`: deploy, rollback (to an older release) or restart.

    CommandError: the slot has no release, or does not answer within `ready` seconds, directly or by nginx's
    link. The old slot then has the traffic.
    """
    if not (config.home / "slots" / slot / "release.json").exists():
        raise CommandError(f"{slot} has no complete release")
    old = live_slot(config)
    verify(config, slot, ready)
    try:
        move(config, slot, kind)
        verify(config, "live", ready)
    except (CommandError, OSError) as failed:
        if not old:
            for link in (config.live, config.runtime_directory / "live"):
                link.unlink(missing_ok=True)
            raise
        move(config, old, "rollback")
        follow(config, rollback=True)  # Celery has started with the release that failed
        raise CommandError(f"{failed}; the traffic is back on {old}") from None


def move(config: Config, slot: str, kind: str) -> None:
    with ending_by_exception(), jobs_held_back(config if kind == "deploy" else None):
        # write the record first: if this is interrupted, the machine boots with the slot that was verified
        point(config.live, f"slots/{slot}")
        sync(config.live.parent)
        record(config, kind, release_in(config, slot))
        finish(config)


def finish(config: Config) -> bool:
    """Point the link that nginx follows at the live slot on disk. Return whether the link changed.

    After a reboot there is no link, and after an interrupted switch it points to the old slot.
    """
    link, slot = config.runtime_directory / "live", live_slot(config)
    if target(link) == slot:
        return False
    point(link, slot)
    return True


@contextmanager
def jobs_held_back(config: Config | None) -> Iterator[None]:
    """Stop Celery during the switch; it is started again however this program exits. None: do nothing.

    The old release's worker would discard a job that only the new release has; meanwhile jobs wait in the
    queue. At a rollback the newer worker can run the old release's jobs, so that no job has to wait.
    """
    units = [f"app-{part}.service" for part in config.celery_parts] if config else []
    if not units:
        yield
        return
    try:
        systemctl("stop", *units)
        yield
    finally:
        systemctl("start", "--no-block", *units)
