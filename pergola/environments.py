"""What new-env and new-app share: the names of environments, and how a new one is checked and written."""

import re
import sys
from pathlib import Path
from typing import NoReturn

import yaml

from pergola.paths import INVENTORIES

REQUIRED = ("edge", "web", "worker", "database", "redis")  # each needs a host (roles/preflight)
GROUPS = (*REQUIRED, "monitoring", "backup")
NAME = re.compile(rf"(?!(?:all|ungrouped|machines|{'|'.join(GROUPS)})$)[a-z][a-z0-9_]*")
NAME_FORM = "a name of lower case letters, digits and _, which is no group's name"


def refuse(text: str) -> NoReturn:
    sys.exit(text)


def new_folder(name: str) -> Path:
    """The folder of an environment that does not exist yet. It may hold secrets already."""
    folder = INVENTORIES / name
    if (folder / "hosts.yml").exists():
        refuse(
            f"NAME={name}: infra/ansible/inventory/{name}/ is there already: edit it, or choose another name"
        )
    return folder


def write(folder: Path, hosts: str, settings: str) -> None:
    group_vars = folder / "group_vars"
    group_vars.mkdir(parents=True, exist_ok=True)
    (group_vars / f"{folder.name}.yml").write_text(settings)
    (folder / "hosts.yml").write_text(hosts)  # last: with it the environment exists


def in_all_groups(host: str) -> str:
    """Lines of hosts.yml that put a host into each group."""
    return "".join(f"{group}:\n  hosts:\n    {host}:\n" for group in GROUPS)


def scalar(value: str) -> str:
    """A text as YAML, with quotes only where they are needed."""
    text: str = yaml.safe_dump(value, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
