"""appctl runs the application's releases on this host, which /etc/app/appctl.json describes.

A command prints a line about what it changed, and nothing if all was as it should be. Exit status: 0; 1 if it
could not be done (the reason is on standard error); 2 for wrong arguments, the wrong user, or a damaged
appctl.json: then nothing was changed.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from . import followers, lock, releases, restart, run, slots, status, switch, verify
from .config import PATH, Config, ConfigError, load
from .system import CommandError

READ_BY_ALL = ("releases",)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="appctl", description=(__doc__ or "").partition("\n")[0])
    top.add_argument("--config", type=Path, default=PATH, help=argparse.SUPPRESS)  # for tests
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    one = command("status", "which release is live, what runs of it, and what failed")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = command("releases", "the releases on this host, oldest deploy first")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = command("prune", "remove all but the releases deployed last and those that slots hold")
    one.add_argument("keep", type=int, metavar="N", help="how many to keep")

    one = command("slot", "start or stop a slot's web and WebSocket processes, or give it a release")
    verbs = one.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("start", "start them again, now and at boot"),
        ("stop", "let them finish what they do, and end them"),
        ("assign", "let a slot without traffic lead to a release"),
    ):
        verbs.add_parser(verb, help=text, description=text).add_argument("slot", metavar="SLOT")
    verbs.choices["stop"].add_argument("--no-block", action="store_true", help="do not wait for their end")
    verbs.choices["assign"].add_argument("release", metavar="RELEASE")

    one = command("verify", "wait until a slot serves (live: the one that nginx finds)")
    one.add_argument("slot", metavar="SLOT")
    one.add_argument("--ready", type=float, default=30, metavar="SECONDS", help="to wait for (30)")
    one.add_argument(
        "--steady", type=float, default=0, metavar="SECONDS", help="in which no process may end (0)"
    )

    one = command("switch", "send all traffic to a slot; without one, finish a switch that was cut off")
    one.add_argument("slot", nargs="?", default="", metavar="SLOT")
    one.add_argument("--rollback", dest="kind", action="store_const", const="rollback", default="deploy",
                     help="to an older release, at once: jobs follow later")  # fmt: skip

    one = command("follow", "restart what does not run the live release: Celery, processes, timers")
    one.add_argument("--no-block", action="store_true", help="do not wait for what they run")

    command("restart", "restart the live release; no request waits or fails")

    one = command("lock", "hold the lock of deploys while a line comes on standard input each minute")
    one.add_argument("who", metavar="WHO")

    one = command("run", "run a program of a release, as the application and in its sandbox")
    one.add_argument(
        "--slot", default="", metavar="SLOT", help="the release of that slot; the live one without"
    )
    one.add_argument("--direct", action="store_true", help="DATABASE_URL leads straight to PostgreSQL")
    one.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM ...")

    one = command("manage", "run a management command of the live release")
    one.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    return top


# names that people type, as links to appctl
LINKS = {"app-run": "run", "app-manage": "manage", "app-status": "status"}


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if linked := LINKS.get(Path(sys.argv[0]).name):
        given = [linked, *given]
    asked = parser().parse_args(given)
    if os.geteuid() and asked.command not in READ_BY_ALL and asked.config == PATH:
        os.execvp("sudo", ["sudo", "/usr/local/sbin/appctl", *given])  # noqa: S606
    try:
        config = load(asked.config)
        check(config, asked)
    except ConfigError as error:
        print(f"appctl: {error}", file=sys.stderr)
        return 2
    try:
        do(config, asked)
    except (CommandError, OSError) as error:
        print(f"appctl {asked.command}: {error}", file=sys.stderr)
        return 1
    return 0


def check(config: Config, asked: argparse.Namespace) -> None:
    """ConfigError: arguments that no host, or not this one, takes."""
    names = [*config.slots, *(["live"] if asked.command == "verify" else []), ""]
    if getattr(asked, "slot", "") not in names:
        raise ConfigError(f"{asked.slot} is no slot: the slots are {' and '.join(config.slots)}")
    if asked.command in ("run", "manage") and not asked.program:
        raise ConfigError(f"{asked.command} wants what to run: appctl {asked.command} --help")


def do(config: Config, asked: argparse.Namespace) -> None:
    match asked.command:
        case "status":
            found = status.status(config)
            print(json.dumps(found.as_dict()) if asked.json else "\n".join(found.lines()))
        case "releases":
            here = releases.releases(config)
            print(
                json.dumps([one.as_dict() for one in here])
                if asked.json
                else "\n".join(one.line() for one in here)
            )
        case "prune":
            for release in releases.prune(config, asked.keep):
                print(f"removed {release}")
        case "slot":
            slot(config, asked)
        case "verify":
            verify.verify(config, asked.slot, asked.ready, asked.steady)
        case "switch" if asked.slot:
            switch.switch(config, asked.slot, asked.kind)
            print(f"{asked.slot} has the traffic")
        case "switch":
            if switch.finish(config):
                print(f"{slots.live_slot(config)} has the traffic again")
        case "follow":
            for unit in followers.follow(config, wait=not asked.no_block):
                print(f"restarted {unit}")
        case "restart":
            restart.restart(config)
        case "lock":
            lock.hold(config, asked.who)
        case "run":
            run.run(config, asked.program, asked.slot, asked.direct)
        case "manage":
            run.run(config, [*config.manage, *asked.program])


def slot(config: Config, asked: argparse.Namespace) -> None:
    match asked.verb:
        case "start":
            slots.start(config, asked.slot)
            print(f"started {asked.slot}")
        case "stop":
            if slots.stop(config, asked.slot, wait=not asked.no_block):
                print(f"stopped {asked.slot}")
        case "assign":
            slots.assign(config, asked.slot, asked.release)
            print(f"{asked.slot} has release {asked.release}")
