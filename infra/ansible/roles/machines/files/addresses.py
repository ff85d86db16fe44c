#!/usr/bin/env python3
"""Where the machines of this inventory are, for Ansible and testinfra; linked into each of their inventories.

Reads what the role `machines` recorded under PERGOLA_STATE. Before `make up` there is no address.
"""

import json
import os
import shlex
from pathlib import Path

inventory = Path(__file__).absolute().parent  # the folder of the link, not of the file behind it
states = Path(os.environ.get("PERGOLA_STATE") or inventory.parents[3] / ".pergola").absolute()
state = states / inventory.name
record = state / "machines.json"
addresses = json.loads(record.read_text())["addresses"] if record.exists() else {}
# quoted for the shell, and in that for ssh, which takes words for several files
known_hosts = shlex.quote(f'UserKnownHostsFile="{state}/known_hosts"')
reach = {
    "ansible_ssh_private_key_file": str(state / "ssh/id_ed25519"),
    "ansible_ssh_common_args": f"-o StrictHostKeyChecking=yes -o {known_hosts}",
}
hostvars = {name: {"ansible_host": address} | reach for name, address in addresses.items()}
print(json.dumps({"machines": {"hosts": list(addresses)}, "_meta": {"hostvars": hostvars}}))
