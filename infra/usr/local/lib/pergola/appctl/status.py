"""The live release, its units, and the units that failed."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from .config import Config
from .journal import handler
from .releases import Release, releases
from .slots import live_slot
from .system import systemctl

# the site's units, in the order in which a request passes them
UNITS = ("nginx.service", "app-*", "pgbouncer@*", "postgresql@*", "redis-server.service")


@dataclass
class Unit:
    name: str
    active: str  # active, inactive, failed ...
    sub: str  # running, exited, auto-restart ...


@dataclass
class Status:
    slot: str
    release: Release | None
    handler: str  # which handler serves, and why
    maintenance: str  # since when, and who switched it on; empty: off
    units: list[Unit]
    failed: list[str]  # of the whole host, including those that systemd restarts repeatedly

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def lines(self) -> list[str]:
        release = self.release.line() if self.release else "(no release yet)"
        lines = [f"live: {self.slot or 'none'}  {release}"]
        if self.maintenance:
            lines.append(f"maintenance mode: on since {self.maintenance}")
        if self.handler:
            lines.append(self.handler)
        lines += [f"  {unit.name:32} {unit.active:10} {unit.sub}" for unit in self.units]
        return lines + [f"  FAILED {name}" for name in self.failed]


def status(config: Config) -> Status:
    slot = live_slot(config)
    return Status(
        slot=slot,
        release=next((one for one in releases(config) if one.live), None),
        handler=handler(slot) if slot and config.serves_web else "",
        maintenance=maintenance(config),
        units=listed("--type=service,timer", *UNITS),
        failed=[unit.name for unit in listed("--state=failed,auto-restart")],
    )


def listed(*arguments: str) -> list[Unit]:
    lines = systemctl("list-units", "--all", "--no-pager", "--legend=no", "--plain", *arguments).splitlines()
    return [
        Unit(name, active, sub) for name, _, active, sub, *_ in (line.split(maxsplit=4) for line in lines)
    ]


def maintenance(config: Config) -> str:
    try:
        since = datetime.fromtimestamp(config.maintenance_flag.stat().st_mtime, UTC)
        return f"{since:%Y-%m-%dT%H:%M:%SZ} {config.maintenance_flag.read_text().strip()}"
    except FileNotFoundError:
        return ""
