"""STATE/machines.json: the environment's random id, its network and the addresses of its machines."""

import ipaddress
import json
import secrets
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pergola.machines.system import write

FIRST_ADDRESS = 10


@dataclass
class Record:
    id: str
    network: str = ""  # empty until the first one is taken
    addresses: dict[str, str] = field(default_factory=dict)  # in the order in which the machines were named

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.network)

    def move(self, network: str) -> None:
        """Take another network; all machines lose their addresses."""
        if network != self.network:
            self.network, self.addresses = network, dict.fromkeys(self.addresses, "")

    def allocate(self, names: Iterable[str]) -> None:
        """Give an address to each machine that has none; a machine keeps the address that it has."""
        free = (str(self.subnet[number]) for number in range(FIRST_ADDRESS, 255))
        self.addresses |= {name: "" for name in names if name not in self.addresses}
        for name, known in self.addresses.items():
            if not known:
                address = next((one for one in free if one not in self.addresses.values()), None)
                if address is None:
                    sys.exit(f"{name}: the network {self.network} has no free address.")
                self.addresses[name] = address


def load(state: Path) -> Record | None:
    file = state / "machines.json"
    return Record(**json.loads(file.read_text())) if file.exists() else None


def new() -> Record:
    return Record(id=secrets.token_hex(8))


def save(state: Path, record: Record) -> bool:
    return write(state / "machines.json", json.dumps(asdict(record), indent=2) + "\n")
