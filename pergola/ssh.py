"""Log in to a host of an environment, or run a command there."""

import os
import shlex
import sys
from typing import NoReturn

from pergola import inventory


def login(env: str, group: str, command: list[str]) -> NoReturn:
    """Replace this process by ssh to $HOST, or to the first host of the group.

    The command gets a terminal on the host if this process has one.
    """
    groups, hosts = inventory.load(env)
    host = os.environ.get("HOST") or next(iter(groups.get(group, [])), None)
    if host not in hosts:
        sys.exit(f"HOST={host}: ENV={env} has the hosts {', '.join(hosts)}")
    if "ansible_host" not in hosts[host] and "machines_provider" in hosts[host]:
        sys.exit(f"{host} of ENV={env} does not run: run make up first")
    words: list[str] = hosts[host]["host_login"]
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    remote = [shlex.join(command)] if command else []
    os.execvp(words[0], [words[0], *terminal, *words[1:], "--", *remote])
