"""Run a program of a release with the application's user, environment, directory and sandbox."""

import os
import sys
from pathlib import Path

from .config import Config
from .system import CommandError


def command(config: Config, program: list[str], slot: str = "", direct: bool = False) -> list[str]:
    """The command line of systemd-run. app-.service.d, with the sandbox, applies by the unit's name.

    `slot`: run with the slot's release at low CPU priority; empty: the live release.
    `direct`: DATABASE_URL bypasses PgBouncer, for programs that need a session (migrations, LISTEN).
    """
    release = config.home / "slots" / slot if slot else config.live
    if not (release / "venv").exists():
        raise CommandError(f"there is no release at {release} yet: run make deploy")
    script = f'PATH={release}/venv/bin:$PATH exec "$@"'
    if direct:
        script = f"DATABASE_URL=$DATABASE_DIRECT_URL; export DATABASE_URL; {script}"
    return [
        *("systemd-run", "--quiet", "--collect", "--wait"),
        "--pty" if sys.stdin.isatty() and sys.stdout.isatty() else "--pipe",
        f"--nice={10 if slot else 0}",
        f"--unit=app-run-{os.getpid()}",
        f"--working-directory={Path(release, 'source', config.directory)}",
        f"--setenv=VIRTUAL_ENV={release}/venv",
        f"--setenv=STATIC_ROOT={release}/static",
        *("--expand-environment=no", "/bin/sh", "-c", script, "appctl", *program),
    ]


def run(config: Config, program: list[str], slot: str = "", direct: bool = False) -> None:
    """Replace this process by the program."""
    line = command(config, program, slot, direct)
    os.execvp(line[0], line)
