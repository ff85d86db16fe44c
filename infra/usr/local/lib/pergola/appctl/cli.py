"""appctl manages the application's releases on this host, which /etc/app/appctl.json describes.

A command prints what it changed, and nothing if it changed nothing. Its exit status is 0; 1 if it failed (the
reason is on standard error); 2 for wrong arguments, the wrong user or a damaged appctl.json: then it changed
nothing.
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from . import followers, lock, maintenance, releases, restart, run, slots, status, switch, verify
from .build import Build
from .config import PATH, Config, ConfigError, load
from .lock import only_one
from .system import CommandError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="appctl", description=(__doc__ or "").partition("\n")[0])
    top.add_argument("--config", type=Path, default=PATH, help=argparse.SUPPRESS)  # for tests
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, lock: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(lock=lock)
        return added

    one = command("status", "the live release, which of its units run, and which units failed")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = command("releases", "the releases on this host, oldest deploy first")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = command("build", "build a release, unless it already exists on this host", lock="build")
    one.add_argument("release", metavar="RELEASE")
    one.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="file from the control machine")
    one.add_argument(
        "--dry-run", action="store_true", help="print whether it has to be built; check the free space"
    )
    one.add_argument(
        "--free-mb", type=int, default=0, metavar="MB", help="needed space (0: from the live release)"
    )

    one = command("slot", "prepare, start or stop the web and WebSocket processes of a slot")
    verbs = one.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(lock="change")
        added.add_argument("slot", metavar="SLOT")
        return added

    listing = verbs.add_parser("list", help="the live and the idle slot, and their releases")
    listing.add_argument("--json", action="store_true", help="as JSON")
    verb("prepare", "stop the processes of an idle slot, and link it to a release").add_argument(
        "release", metavar="RELEASE"
    )
    with_times(
        verb("start", "start its processes, now and at boot, and wait until they serve"), ready=60, steady=0
    )
    verb("stop", "let its processes finish their requests, and stop them (idle: the idle slot)").add_argument(
        "--no-block", action="store_true", help="do not wait until they have stopped"
    )

    one = command("verify", "wait until a slot serves (live: the one that nginx uses)")
    one.add_argument("slot", metavar="SLOT")
    with_times(one, ready=30, steady=0)

    text = "send all traffic to a slot; without SLOT, finish an interrupted switch"
    one = command("switch", text, lock="change")
    one.add_argument("slot", nargs="?", default="", metavar="SLOT")
    with_times(one, ready=30)
    one.add_argument("--rollback", dest="kind", action="store_const", const="rollback", default="deploy",
                     help="to an older release, without stopping Celery first")  # fmt: skip

    text = "restart Celery and other processes that do not run the live release; start timers"
    one = command("follow", text, lock="change")
    one.add_argument(
        "--rollback", action="store_true", help="do not wait for their jobs, and leave timers as they are"
    )

    one = command("prune", "remove old releases, except those in slots", lock="change")
    one.add_argument("keep", type=int, metavar="N", help="how many to keep, by their last deploy")

    command("restart", "restart the live release in the other slot, so that no request fails or waits")
    command("disconnect", "restart WebSocket processes that started before maintenance mode was switched on")

    one = command("lock", "hold the deploy lock while a line arrives on standard input each minute")
    one.add_argument("who", metavar="WHO")

    one = command(
        "run", "run a program with the release's packages, as the application's user in its sandbox"
    )
    one.add_argument(
        "--slot", default="", metavar="SLOT", help="the slot's release at low CPU priority; default: live"
    )
    one.add_argument("--direct", action="store_true", help="connect to PostgreSQL without PgBouncer")
    one.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM ...")

    one = command("manage", "run a management command of the live release")
    one.add_argument("program", nargs=argparse.REMAINDER, metavar="[--] COMMAND ...")
    return top


def with_times(command: argparse.ArgumentParser, ready: float, steady: float | None = None) -> None:
    def seconds(name: str, default: float, text: str) -> None:
        command.add_argument(
            f"--{name}", type=float, default=default, metavar="SECONDS", help=f"{text} ({default:g})"
        )

    seconds("ready", ready, "to wait until it answers")
    if steady is not None:
        seconds("steady", steady, "during which no process may exit after that")


def main(arguments: list[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    try:
        if os.geteuid() and asked.config == PATH:
            raise ConfigError(f"{asked.command} needs root: sudo appctl {asked.command}")
        config = load(asked.config)
        check(config, asked)
    except ConfigError as error:
        print(f"appctl: {error}", file=sys.stderr)
        return 2
    try:
        with contextlib.ExitStack() as stack:
            if asked.lock:
                stack.enter_context(only_one(asked.lock, config, f"appctl {asked.command}"))
            do(config, asked)
    except (CommandError, OSError) as error:
        print(f"appctl {asked.command}: {error}", file=sys.stderr)
        return 1
    return 0


def check(config: Config, asked: argparse.Namespace) -> None:
    """Raise ConfigError for arguments that are invalid on this host."""
    names = [*config.slots, ""]
    if asked.command == "verify":
        names.append("live")
    if getattr(asked, "verb", "") == "stop":
        names.append("idle")
    if getattr(asked, "slot", "") not in names:
        raise ConfigError(f"{asked.slot} is not a slot: the slots are {' and '.join(config.slots)}")
    if asked.command == "run" and not asked.program:
        raise ConfigError("run needs a PROGRAM: appctl run --help")
    if asked.command == "build" and not (asked.dry_run or asked.bundle):
        raise ConfigError("build needs a BUNDLE, or --dry-run")
    if asked.command == "prune" and asked.keep < 1:
        raise ConfigError(f"prune {asked.keep}: the live release is always kept, so write 1 or more")


def do(config: Config, asked: argparse.Namespace) -> None:
    match asked.command:
        case "status":
            found = status.status(config)
            print(json.dumps(found.as_dict()) if asked.json else "\n".join(found.lines()))
        case "releases":
            here = releases.releases(config)
            lines = "\n".join(one.line() for one in here)
            print(json.dumps([one.as_dict() for one in here]) if asked.json else lines)
        case "build":
            build(config, asked)
        case "slot":
            slot(config, asked)
        case "verify":
            verify.verify(config, asked.slot, asked.ready, asked.steady)
        case "switch" if asked.slot:
            switch.switch(config, asked.slot, asked.kind, asked.ready)
            print(f"{asked.slot} has the traffic")
        case "switch":
            if switch.finish(config):
                print(f"{slots.live_slot(config)} has the traffic, after an interrupted switch")
        case "follow":
            for unit in followers.follow(config, asked.rollback):
                print(f"restarted {unit}")
        case "prune":
            for release in releases.prune(config, asked.keep):
                print(f"removed {release}")
        case "restart":
            if live := restart.restart(config):
                print(f"{live} has the traffic")
        case "disconnect":
            for unit in maintenance.disconnect(config):
                print(f"restarted {unit}")
        case "lock":
            lock.hold(config, asked.who)
        case "run":
            run.run(config, asked.program, asked.slot, asked.direct)
        case "manage":
            # options after `--` are Django's, such as --version
            words = asked.program[1:] if asked.program[:1] == ["--"] else asked.program
            run.run(config, [*config.manage, *words])


def build(config: Config, asked: argparse.Namespace) -> None:
    wanted = Build(config, asked.release)
    if not wanted.is_needed():
        return
    if asked.dry_run:
        wanted.check_space(asked.free_mb)
        print(f"{asked.release} has to be built")
    else:
        wanted.build(asked.bundle)
        print(f"built {asked.release}")


def slot(config: Config, asked: argparse.Namespace) -> None:
    match asked.verb:
        case "list":
            found = slots.listed(config)
            lines = "\n".join(f"{name}: {value or 'none'}" for name, value in found.items())
            print(json.dumps(found) if asked.json else lines)
        case "prepare":
            if slots.prepare(config, asked.slot, asked.release):
                print(f"stopped {asked.slot}")
            print(f"{asked.slot} has release {asked.release}")
        case "start":
            handler = verify.start_and_verify(config, asked.slot, asked.ready, asked.steady)
            if config.serves_web:
                print("\n".join(filter(None, [f"started {asked.slot}", handler])))
        case "stop":
            name = slots.idle_slot(config) if asked.slot == "idle" else asked.slot
            if slots.stop(config, name, wait=not asked.no_block):
                print(f"stopped {name}")
