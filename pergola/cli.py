"""The verbs of `.venv/bin/pergola`. Each imports its own module, so that only some import Ansible."""

import argparse
import os
from collections.abc import Callable

from pergola.machines import cli as machines
from pergola.paths import ROOT

Run = Callable[[argparse.Namespace], None]


def settings(given: argparse.Namespace) -> None:
    from pergola import inventory

    inventory.show(given.env, given.name, given.host, given.groups)


def ssh(given: argparse.Namespace) -> None:
    from pergola import ssh

    ssh.login(given.env, given.group, given.command)


def cloud_init(given: argparse.Namespace) -> None:
    from pergola import cloud_init

    cloud_init.show(given.env)


def doctor(given: argparse.Namespace) -> None:
    from pergola import doctor

    doctor.examine(given.env, given.room)


def new_env(given: argparse.Namespace) -> None:
    from pergola import new_env

    new_env.new_env(given.name, given.host, given.domain, given.key)


def new_app(given: argparse.Namespace) -> None:
    from pergola import new_app

    new_app.new_app(given.name, given.source)


def lease(given: argparse.Namespace) -> None:
    from pergola import lease

    lease.hold(given.pid, given.command)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="pergola",
        description="What runs on the control machine; the targets of the Makefile call it.",
    )
    verbs = made.add_subparsers(metavar="VERB", required=True)

    def add(name: str, run: Run, summary: str, details: str = "") -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}".strip()
        )
        verb.set_defaults(run=run)
        return verb

    def of_environment(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
        verb.add_argument("env", metavar="ENV", help="a folder of infra/ansible/inventory/")
        return verb

    verb = of_environment(
        add(
            "settings",
            settings,
            "print an environment's settings",
            "All settings of all hosts as JSON, or the one that is named, of the first host that has it. "
            "Secrets and facts are not loaded, so settings that are computed from them are left out.",
        )
    )
    verb.add_argument("name", metavar="NAME", nargs="?", help="print this setting only; a list by lines")
    verb.add_argument("--host", help="take the setting of this host")
    verb.add_argument("--groups", action="store_true", help="print the groups instead: {group: [host]}")

    verb = of_environment(
        add(
            "ssh",
            ssh,
            "log in to a host, or run a command there",
            "The host is $HOST, or the first host of GROUP.",
        )
    )
    verb.add_argument("group", metavar="GROUP", help="a group of the inventory, such as web, or all")
    verb.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")

    of_environment(
        add(
            "cloud-init",
            cloud_init,
            "print the user data of a fresh server",
            "With it a cloud server lets the operator of ENV log in, so that `make converge` can build it.",
        )
    )
    verb = of_environment(
        add(
            "doctor",
            doctor,
            "show what this machine can run, and what it lacks",
            "A line for each thing: what, ok or no, and what was seen or the fix. "
            "The exit status is 0 if one of the ways to make machines is open.",
        )
    )
    verb.add_argument(
        "--room", metavar="PROVIDER", help="print only what this machine lacks for Vagrant's new machines"
    )

    verb = add("new-env", new_env, "write the inventory of a fresh server")
    verb.add_argument("name", metavar="NAME", help="of the environment: lower case letters, digits and _")
    verb.add_argument("host", metavar="HOST", help="the server's address or name")
    verb.add_argument("domain", metavar="DOMAIN", help="the site's name in lower case")
    verb.add_argument("--key", default="", help="public keys of the operator; default: ~/.ssh/*.pub")

    verb = add(
        "new-app",
        new_app,
        "write the inventory of a local replica with an application",
        "The settings are read from its files. A variable with a setting's name in capitals is an answer "
        "given beforehand, such as APP_HEALTH_PATH=/healthz; APP_REVISION names a revision of a git URL.",
    )
    verb.add_argument("name", metavar="NAME", help="of the environment: lower case letters, digits and _")
    verb.add_argument("source", metavar="SOURCE", help="a directory, or a git URL")

    verb = add(
        "lease",
        lease,
        "run a command for as long as a process lives",
        "Deploys hold the lock of a host by it.",
    )
    verb.add_argument("pid", metavar="PID", type=int, help="the process")
    verb.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments")

    summary = "make, boot and remove machines on this host"
    machines.add_arguments(verbs.add_parser("machines", help=summary))
    return made


def main(arguments: list[str] | None = None) -> None:
    # Ansible looks for its configuration in the working directory only.
    os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    given = parser().parse_args(arguments)
    run: Run = given.run
    run(given)
