"""/etc/app/appctl.json, which a converge writes: the settings that appctl needs."""

import dataclasses
import json
import typing
from pathlib import Path

PATH = Path("/etc/app/appctl.json")


class ConfigError(Exception):
    """The file is missing or damaged. The message is one line and contains the fix."""


@dataclasses.dataclass(frozen=True)
class Config:
    home: Path  # releases, slots, history, static files
    runtime_directory: Path  # the slots' sockets, the link that nginx follows
    package_cache: Path  # of uv
    maintenance_flag: Path
    user: str
    group: str
    directory: str  # of the project, inside of a release's source
    slots: tuple[str, ...]
    serves_web: bool  # whether web and WebSocket processes run on this host
    http_server: str  # the program in a release's environment that the web unit starts
    websocket_processes: int
    celery_parts: tuple[str, ...]  # of worker and beat, those of this host
    processes: tuple[str, ...]
    timers: tuple[str, ...]
    host_name: str  # Host header of requests for the health path
    health_path: str
    manage: tuple[str, ...]  # the command that runs a management command
    python_index: str  # the address of a package index, also with a password; empty: uv's default

    @property
    def live(self) -> Path:
        """The link to the live slot, on disk."""
        return self.home / "live"

    @property
    def followers(self) -> tuple[str, ...]:
        """The services that run the live release outside the slots; Celery first, as jobs wait for it."""
        return tuple(f"app-{name}.service" for name in (*self.celery_parts, *self.processes))

    def web_units(self, slot: str) -> tuple[str, ...]:
        """The units of a slot; none on a host that runs only workers."""
        if not self.serves_web:
            return ()
        numbers = range(1, self.websocket_processes + 1)
        sockets = [f"app-websocket@{slot}-{number}.service" for number in numbers]
        return (f"app-web@{slot}.socket", f"app-web@{slot}.service", *sockets)


def load(path: Path = PATH) -> Config:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: make converge writes it") from None
    except PermissionError:
        raise ConfigError(f"{path} cannot be read: run appctl as root") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}): make converge writes it again") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object: make converge writes it again")
    wanted = typing.get_type_hints(Config)
    # other keys are accepted: an interrupted converge of a later version may have written the file
    if missing := sorted(wanted.keys() - found.keys()):
        raise ConfigError(f"{path} has no {', '.join(missing)}: make converge writes it again")
    return Config(**{name: convert(path, name, found[name], kind) for name, kind in wanted.items()})


def convert(path: Path, name: str, value: object, kind: typing.Any) -> typing.Any:
    """Convert the value of a field. ConfigError: it has another type."""
    if kind is Path and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    if kind in (str, bool, int) and type(value) is kind:
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ConfigError(f"{path}: {name} is {value!r}, not of type {kind}: make converge writes it again")
