"""Inventories of the tests' own: one server that no test connects to."""

import pytest
import yaml

from pergola.environments import REQUIRED


class Inventory:
    def __init__(self, folder):
        self.folder = folder / "servers"
        (self.folder / "group_vars").mkdir(parents=True)
        groups = {"servers": {"hosts": {"one": {"ansible_host": "198.18.0.1"}}}}
        groups |= {name: {"hosts": {"one": None}} for name in REQUIRED}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(groups))

    def settings(self, values):
        (self.folder / "group_vars/servers.yml").write_text(yaml.safe_dump(values))


@pytest.fixture
def inventory(tmp_path):
    return Inventory(tmp_path)
