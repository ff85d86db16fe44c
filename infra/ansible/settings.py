"""Print an environment's settings, worked out as the playbooks see them.

    settings.py ENV                 every setting of every host, as JSON: {host: {name: value}}
    settings.py ENV --groups        the groups, as JSON: {group: [host]}
    settings.py ENV NAME            one setting, of the first host that has it; lists a word a line
    settings.py ENV NAME --host H   one setting of the host H

Secrets and facts are not loaded, so what is worked out from them is left out. Reads files only.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def load(env, given=None):
    """Return an environment as ({group: [host]}, {host: {name: value}}).

    ``given`` are further variables that beat all others: facts, say, or secrets.
    """
    folder = HERE / "inventory" / env
    if not (folder / "hosts.yml").is_file():
        known = ", ".join(sorted(path.parent.name for path in HERE.glob("inventory/*/hosts.yml")))
        sys.exit(
            f"ENV={env}: no inventory of that name; there are {known}, and make new-env NAME={env} makes one"
        )
    # The import takes a third of a second, which a misspelt ENV does not have to wait for.
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar
    from ansible.vars.manager import VariableManager

    init_plugin_loader()
    loader = DataLoader()
    loader.set_basedir(str(HERE))
    inventory = InventoryManager(loader=loader, sources=[str(folder)])
    variables = VariableManager(loader=loader, inventory=inventory)
    defaults = {}
    for path in sorted(HERE.glob("roles/*/defaults/main.yml")):
        defaults |= loader.load_from_file(str(path), trusted_as_template=True) or {}

    def host_settings(host):
        places = {"playbook_dir": str(HERE), "inventory_dir": str(folder)}
        raw = defaults | variables.get_vars(host=host) | places | (given or {})
        templar = Templar(loader=loader, variables=raw)
        for name in raw:
            try:
                yield name, templar.template(raw[name])
            except AnsibleError:
                continue  # a secret or a fact

    groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
    return groups, {host.name: dict(host_settings(host)) for host in inventory.get_hosts()}


def main():
    parser = argparse.ArgumentParser(description="Print an environment's settings.")
    parser.add_argument("env")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--host")
    parser.add_argument("--groups", action="store_true")
    arguments = parser.parse_args()
    groups, hosts = load(arguments.env)
    if arguments.groups:
        print(json.dumps(groups, default=str))
    elif not arguments.name:
        print(json.dumps(hosts, default=str))
    else:
        if arguments.host and arguments.host not in hosts:
            sys.exit(f"HOST={arguments.host}: ENV={arguments.env} has the hosts {', '.join(hosts)}")
        for host in [arguments.host] if arguments.host else hosts:
            if arguments.name in hosts[host]:
                value = hosts[host][arguments.name]
                print(*(value if isinstance(value, list) else [value]), sep="\n")
                return
        sys.exit(f"{arguments.name} is not known yet for ENV={arguments.env}: run make up first")


if __name__ == "__main__":
    main()
