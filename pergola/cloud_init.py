"""The user data of a fresh Debian 13 server that `make converge` can log in to.

Debian's cloud images run cloud-init, and providers ask for its "user data" when a server is made. It makes
the operator's user with the public keys of the inventory.
"""

import json
import re
import sys
from pathlib import Path

import yaml

from pergola import inventory

KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ \S+")


def public_key(env: str, given: str) -> str:
    file = Path(given).expanduser()
    if KEY.match(given):
        return given
    if given.startswith(("~", "/", ".")) and file.suffix == ".pub" and file.is_file():
        return file.read_text().strip()
    sys.exit(
        f"ENV={env}: site_operator_keys holds '{given}', which is neither a public key "
        "('ssh-ed25519 AAAA...') nor the path of an existing .pub file on this machine"
    )


def show(env: str) -> None:
    """Print the user data; reads files only."""
    host = next(iter(inventory.load(env)[1].values()))
    if "machines_provider" in host or "vagrant_machine" in host:
        sys.exit(
            f"ENV={env}: make up or vagrant up makes its machines; a server's is written by make new-env"
        )
    keys = [public_key(env, key) for key in host.get("site_operator_keys") or []]
    if not keys:
        sys.exit(f"ENV={env}: site_operator_keys is empty: name an SSH public key, or its .pub file")
    operator = {
        "name": host["site_operator_user"],
        "lock_passwd": True,
        "shell": "/bin/bash",
        "ssh_authorized_keys": keys,
        "sudo": "ALL=(ALL) NOPASSWD: ALL",
    }
    data = {"users": [operator], "ssh_pwauth": False, "packages": ["python3", "sudo"]}
    print(f"#cloud-config\n# then: make converge ENV={env}")
    plain = json.loads(json.dumps(data))  # Ansible's strings have a class of their own
    print(yaml.safe_dump(plain, sort_keys=False, width=10_000), end="")
