"""The verbs of `pergola machines`, as the role `machines` calls them.

A verb prints one line for each thing that it changed, and nothing if nothing changed. If it refuses, it
prints one line on stderr.
"""

import argparse
import os
import re
from pathlib import Path


def absolute(text: str) -> Path:
    return Path(text).resolve()


def memory(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*[MG]", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number and M or G, such as 2G")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Make, boot and remove Debian machines with systemd-nspawn. Needs root."
    parser.add_argument("--state", type=absolute, required=True, help="the environment's state directory")
    parser.add_argument("--images", type=absolute, help="where base images are kept (check, image, up)")
    verbs = parser.add_subparsers(dest="machines_verb", metavar="VERB", required=True)

    verb = verbs.add_parser(
        "check", help="refuse a host that cannot run machines; print the packages that it lacks"
    )
    verb.add_argument("range", metavar="RANGE", help="networks to choose from, such as 198.18.0.0/15")
    verb.add_argument("names", metavar="NAME", nargs="+", help="of a machine")
    verb = verbs.add_parser("install", help="install Debian packages on this host")
    verb.add_argument("packages", metavar="PACKAGE", nargs="+")
    verb = verbs.add_parser("image", help="build the base image, unless it exists")
    verb.add_argument("--mirror", default="", help="a Debian mirror; default: what mmdebstrap uses")
    verb.add_argument("packages", metavar="PACKAGE", nargs="+")
    verb = verbs.add_parser("network", help="take a free network, and make its bridge and firewall rules")
    verb.add_argument("range", metavar="RANGE")
    verb.add_argument("names", metavar="NAME", nargs="+")
    verb = verbs.add_parser("up", help="make and boot a machine, unless it runs")
    verb.add_argument("name", metavar="NAME")
    verb.add_argument("--memory", type=memory, required=True, help="a number and M or G")
    verb = verbs.add_parser("supervise", help="run a machine until it ends; `up` starts this")
    verb.add_argument("name", metavar="NAME")
    verb = verbs.add_parser("wait", help="wait until a machine has booted and its sshd answers")
    verb.add_argument("name", metavar="NAME")
    verb.add_argument("--port", type=int, default=22)
    verb.add_argument("--seconds", type=int, default=120)
    verb = verbs.add_parser("down", help="stop and remove all machines, their data and their network")
    verb.add_argument("--seconds", type=int, default=60, help="until a machine that does not stop is killed")

    def run(given: argparse.Namespace) -> None:
        if given.images is None and given.machines_verb in ("check", "image", "up"):
            parser.error(f"{given.machines_verb} needs --images")
        call(given)

    parser.set_defaults(run=run)


def call(given: argparse.Namespace) -> None:
    from pergola.machines import host, image, lifecycle

    os.umask(0o022)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    match given.machines_verb:
        case "check":
            host.check(given.state, given.images, given.range, given.names)
        case "install":
            host.install(given.packages)
        case "image":
            image.build(given.images, given.mirror, given.packages)
        case "network":
            lifecycle.network(given.state, given.range, given.names)
        case "up":
            lifecycle.up(given.state, given.images, given.name, given.memory)
        case "supervise":
            lifecycle.machine(given.state, given.name).supervise()
        case "wait":
            lifecycle.wait(given.state, given.name, given.port, given.seconds)
        case "down":
            lifecycle.down(given.state, given.seconds)
