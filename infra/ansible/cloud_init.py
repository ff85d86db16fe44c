"""Print the user data of a fresh Debian 13 server that `make converge` can log in to: cloud_init.py ENV

For cloud-init, which Debian's images for clouds carry: a provider asks for "user data" when a server is made.
It makes the operator's user with the keys of the inventory. Reads files only.
"""

import json
import re
import sys
from pathlib import Path

import settings
import yaml

KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ \S+")


def public_key(env, given):
    file = Path(given).expanduser()
    if KEY.match(given):
        return given
    if given.startswith(("~", "/", ".")) and file.suffix == ".pub" and file.is_file():
        return file.read_text().strip()
    return sys.exit(
        f"ENV={env}: site_operator_keys holds '{given}', which is neither a public key "
        "('ssh-ed25519 AAAA...') nor the path of an existing .pub file on this machine"
    )


def main():
    [env] = sys.argv[1:]
    host = next(iter(settings.load(env)[1].values()))
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
    plain = json.loads(json.dumps(data))  # Ansible's texts are of a class of its own
    print(yaml.safe_dump(plain, sort_keys=False, width=10_000), end="")


if __name__ == "__main__":
    main()
