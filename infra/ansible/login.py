"""Log in to a host of an environment, or run a command there: login.py ENV GROUP [COMMAND ...]

The host is $HOST, or the first of GROUP. With a terminal on this side, the command gets one on the other.
"""

import os
import shlex
import sys

import settings


def main():
    env, group, *command = sys.argv[1:]
    groups, hosts = settings.load(env)
    host = os.environ.get("HOST") or next(iter(groups.get(group, [])), None)
    if host not in hosts:
        sys.exit(f"HOST={host}: ENV={env} has the hosts {', '.join(hosts)}")
    if "ansible_host" not in hosts[host] and "machines_provider" in hosts[host]:
        sys.exit(f"{host} of ENV={env} does not run: run make up first")
    login = hosts[host]["host_login"]
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    os.execvp(login[0], [login[0], *terminal, *login[1:], "--", *([shlex.join(command)] if command else [])])


if __name__ == "__main__":
    main()
