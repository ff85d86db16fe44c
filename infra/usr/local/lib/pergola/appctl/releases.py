"""The releases that a host holds, and the order in which they were deployed."""

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from .config import Config
from .slots import live_slot, release_in
from .system import sync


@dataclass
class Release:
    id: str
    revision: str
    built: str  # UTC
    deployed: str | None = None  # UTC; None: it never had traffic
    live: bool = False
    previous: bool = False  # the target of a rollback: deployed before the live one

    def line(self) -> str:
        mark = "live" if self.live else "previous" if self.previous else ""
        deployed = self.deployed or "never, it was refused"
        return f"{self.id}  {self.revision[:12]:12}  built {self.built}  deployed {deployed}  {mark}".rstrip()

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class Switch:
    """A line of the history."""

    time: str
    kind: str  # deploy, rollback or restart
    release: str


def history(config: Config) -> list[Switch]:
    try:
        lines = [line.split() for line in (config.home / "history").read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []
    # a full disk may have cut a line
    return [Switch(*line) for line in lines if len(line) == 3]


def record(config: Config, kind: str, release: str) -> None:
    """Append a switch to the history. Errors are ignored, as a full disk must not prevent the switch."""
    path = config.home / "history"
    try:
        text = path.read_text(errors="replace") if path.exists() else ""
        whole = "" if text.endswith("\n") or not text else "\n"  # ends a line that a full disk cut off
        with path.open("a") as file:
            file.write(f"{whole}{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {kind} {release}\n")
        sync(path)
    except OSError:
        pass


def releases(config: Config) -> list[Release]:
    """Every complete release: those that never had traffic, then the others, oldest deploy first."""
    live = release_in(config, live_slot(config)) if live_slot(config) else ""
    switches = history(config)
    if live and (not switches or switches[-1].release != live):
        switches.append(Switch("unknown", "deploy", live))  # a full disk may have prevented the last line
    deployed = {one.release: number for number, one in enumerate(switches) if one.kind == "deploy"}
    found = []
    for path in (config.home / "releases").glob("*/release.json"):
        with contextlib.suppress(ValueError, KeyError):  # a damaged file, as in an incomplete release
            facts = json.loads(path.read_text())
            found.append(Release(facts["id"], facts["revision"], facts["built"]))
    found.sort(key=lambda one: (deployed.get(one.id, -1), one.built))
    # releases that had the traffic before the live one was deployed, by any kind of switch
    held = {one.id for one in found}
    earlier = [
        one.release
        for one in switches[: deployed.get(live, 0)]
        if one.release != live and one.release in held
    ]
    for one in found:
        if one.id in deployed:
            one.deployed = switches[deployed[one.id]].time
        one.live = one.id == live
        one.previous = earlier[-1:] == [one.id]
    return found


def prune(config: Config, keep: int) -> list[str]:
    """Remove all but the `keep` releases deployed last and those in slots; return the removed ones."""
    held = {release_in(config, slot) for slot in config.slots}
    deployed = [one.id for one in releases(config) if one.deployed]
    kept = held | set(deployed[-keep:])
    removed = []
    for path in sorted((config.home / "releases").iterdir()):
        if path.name not in kept:
            shutil.rmtree(path)
            removed.append(path.name)
    remove_static_files_of_no_release(config)
    return removed


def remove_static_files_of_no_release(config: Config) -> None:
    trees = list((config.home / "releases").glob("*/static"))
    wanted = {file.relative_to(tree) for tree in trees for file in tree.rglob("*")}
    static = config.home / "static"
    for file in sorted(static.rglob("*"), reverse=True):
        if file.relative_to(static) not in wanted:
            if file.is_dir():
                file.rmdir()
            else:
                file.unlink()
