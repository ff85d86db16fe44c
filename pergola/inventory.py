"""An environment's groups, hosts and settings, templated as the playbooks see them. Reads files only."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pergola.paths import ANSIBLE, INVENTORIES

Settings = dict[str, Any]
Groups = dict[str, list[str]]
Hosts = dict[str, Settings]


def load(env: str, given: Mapping[str, Any] | None = None) -> tuple[Groups, Hosts]:
    """Return an environment as ({group: [host]}, {host: {name: value}}).

    ``given`` are variables with precedence over all others, such as facts or secrets. A setting that is
    computed from a fact or a secret that is not given is left out.
    """
    folder = INVENTORIES / env
    if not (folder / "hosts.yml").is_file():
        known = ", ".join(sorted(path.parent.name for path in INVENTORIES.glob("*/hosts.yml")))
        sys.exit(
            f"ENV={env}: no inventory of that name; there are {known}, and make new-env NAME={env} makes one"
        )
    # This import takes a third of a second, which a misspelt ENV need not wait for.
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar
    from ansible.vars.manager import VariableManager

    init_plugin_loader()
    loader = DataLoader()
    loader.set_basedir(str(ANSIBLE))
    inventory = InventoryManager(loader=loader, sources=[str(folder)])
    variables = VariableManager(loader=loader, inventory=inventory)

    def host_settings(host: Any) -> Iterator[tuple[str, Any]]:
        places = {"playbook_dir": str(ANSIBLE), "inventory_dir": str(folder)}
        raw = variables.get_vars(host=host) | places | dict(given or {})
        templar = Templar(loader=loader, variables=raw)
        for name in raw:
            try:
                yield name, templar.template(raw[name])
            except AnsibleError:
                continue  # needs a secret or a fact

    groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
    return groups, {host.name: dict(host_settings(host)) for host in inventory.get_hosts()}


def show(env: str, name: str | None, host: str | None, groups_only: bool) -> None:
    """Print the groups, all settings, or one setting; a list is printed with one item on each line."""
    groups, hosts = load(env)
    if groups_only:
        print(json.dumps(groups, default=str))
        return
    if name is None:
        print(json.dumps(hosts, default=str))
        return
    if host and host not in hosts:
        sys.exit(f"HOST={host}: ENV={env} has the hosts {', '.join(hosts)}")
    for settings in [hosts[host]] if host else hosts.values():
        if name in settings:
            value = settings[name]
            print(*(value if isinstance(value, list) else [value]), sep="\n")
            return
    sys.exit(f"{name} is not known yet for ENV={env}: run make up first")
