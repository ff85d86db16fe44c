"""Write the inventory of a fresh server. An environment that exists is never overwritten."""

import re
from pathlib import Path

from pergola.environments import NAME, NAME_FORM, in_all_groups, new_folder, refuse, scalar, write

EXAMPLE = "make new-env NAME=production HOST=203.0.113.7 DOMAIN=app.example.org"
HOST = re.compile(r"[A-Za-z0-9.:-]+")
DOMAIN = re.compile(r"[a-z0-9.-]+")

HOSTS = """\
# One server that does everything. More servers: another host in some of the groups.
{name}:
  hosts:
    {name}-1:
      ansible_host: {host}
"""
SETTINGS = """\
# The settings of this environment. All there are, with their defaults: docs/settings.md.
site_domain: {domain}
# these keys log in as the operator, and no others
site_operator_keys:
{keys}
# the user that the first converge logs in as, which makes the operator's user
site_bootstrap_user: root
"""


def public_keys(given: str) -> list[str]:
    """The files that a pattern names, or all public keys of ~/.ssh; those below the home directory by ~."""
    home = Path.home()
    pattern = Path(given).expanduser().absolute() if given else home / ".ssh/*.pub"
    found = sorted(path for path in pattern.parent.glob(pattern.name) if path.is_file())
    return [f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path) for path in found]


def new_env(name: str, host: str, domain: str, key: str) -> None:
    """Write infra/ansible/inventory/NAME/, and print what comes next."""
    wanted = [
        ("NAME", name, NAME, NAME_FORM),
        ("HOST", host, HOST, "the server's address or name"),
        ("DOMAIN", domain, DOMAIN, "the site's name in lower case"),
    ]
    wrong = [
        f"{what}={value!r}: write {form}, as in {EXAMPLE}"
        for what, value, pattern, form in wanted
        if not pattern.fullmatch(value)
    ]
    if wrong:
        refuse("\n".join(wrong))
    folder = new_folder(name)
    keys = public_keys(key)
    if not keys:
        refuse(
            f"There is no public key {key or 'in ~/.ssh'}: make one with ssh-keygen and give it to the "
            "server's root, or name another one by KEY="
        )
    lines = "\n".join(f"  - {scalar(one)}" for one in keys)
    hosts = HOSTS.format(name=name, host=scalar(host)) + in_all_groups(f"{name}-1")
    write(folder, hosts, SETTINGS.format(domain=scalar(domain), keys=lines))
    print(
        f"infra/ansible/inventory/{name}/ is written. Next, if the server's root accepts one of these keys:\n"
        f"  make converge ENV={name}\n  make deploy ENV={name}\n  make verify ENV={name}"
    )
