"""Where the machines of an inventory are, for Ansible and testinfra. Reads the record of `make up`."""

import json
import os
import shlex
from pathlib import Path
from typing import Any


def state_directory(inventory: Path) -> Path:
    """The directory of an environment's state: named after its inventory, under PERGOLA_STATE or .pergola."""
    states = os.environ.get("PERGOLA_STATE") or inventory.parents[3] / ".pergola"
    return Path(states).absolute() / inventory.name


def inventory_of(state: Path) -> dict[str, Any]:
    """What an inventory script prints for `--list`. Before `make up` there is no address."""
    file = state / "machines.json"
    addresses: dict[str, str] = json.loads(file.read_text())["addresses"] if file.exists() else {}
    # quoted for the shell, and within that for ssh, which takes words for several files
    known_hosts = shlex.quote(f'UserKnownHostsFile="{state}/known_hosts"')
    login = {
        "ansible_ssh_private_key_file": str(state / "ssh/id_ed25519"),
        "ansible_ssh_common_args": f"-o StrictHostKeyChecking=yes -o {known_hosts}",
    }
    hostvars = {name: {"ansible_host": address} | login for name, address in addresses.items()}
    return {"machines": {"hosts": list(addresses)}, "_meta": {"hostvars": hostvars}}


def show(inventory: Path) -> None:
    print(json.dumps(inventory_of(state_directory(inventory))))
