"""Networks of machines: each environment takes a free /24 and makes a bridge for it, with NAT outward."""

import contextlib
import ipaddress
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pergola.machines import firewall
from pergola.machines.record import Record
from pergola.machines.system import VAGRANT, attempt, run, wait_for

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
Network = ipaddress.IPv4Network


class Claim(NamedTuple):
    """What a bridge's alias says; both are empty while its maker is between two commands."""

    owner: str  # a record's id
    forwarding: str  # net.ipv4.ip_forward before the first of our bridges


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Held by one process of this network namespace, whichever /run it sees; released when it dies."""
    with socket.socket(socket.AF_UNIX) as one:

        def taken() -> bool:
            with contextlib.suppress(OSError):
                one.bind("\0pergola-network")
                return True
            return False

        if not wait_for(taken, 60):
            sys.exit(
                "Another `make up` or `make down` has been changing networks for a minute: end it first."
            )
        yield


def bridge_name(network: Network) -> str:
    """pergola0 to pergola511: the number of the /24 within its /15."""
    return f"pergola{int(network.network_address) >> 8 & 511}"


def bridges() -> dict[str, Claim]:
    """Our bridges on this host, of all environments and checkouts."""
    found = {}
    for link in json.loads(run("ip", "-json", "link", "show", "type", "bridge") or "[]"):
        if re.fullmatch(r"pergola\d+", link.get("ifname", "")):
            found[link["ifname"]] = claim_of(link.get("ifalias", ""))
    return found


def claim_of(alias: str) -> Claim:
    owner, forwarding = [*alias.split(), "", ""][:2]
    return Claim(owner, forwarding)


def own_bridge(record: Record) -> str | None:
    return next((name for name, claim in bridges().items() if claim.owner == record.id), None)


def networks_in_use() -> list[Network]:
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    return [
        Network(route["dst"], strict=False)
        for route in routes
        if route["dst"] not in ("default", "0.0.0.0/0") and re.match(r"\d", route["dst"])
    ]


def candidates(record: Record, range_: str) -> list[Network]:
    """All /24 of the range in the order of preference: the recorded one, then from one that the id picks."""
    networks = list(Network(range_).subnets(new_prefix=24))
    start = int(record.id, 16) % len(networks)
    order = networks[start:] + networks[:start]
    return sorted(order, key=lambda network: str(network) != record.network)


def free_networks(record: Record, range_: str) -> Iterator[Network]:
    """The candidates that no bridge of ours and no route of the host uses; exit after the last."""
    ours, used = bridges(), networks_in_use()
    for network in candidates(record, range_):
        if bridge_name(network) not in ours and not any(network.overlaps(other) for other in used):
            yield network
    sys.exit(
        f"No network of {range_} is free: run `make down` where none is needed, or set machines_networks."
    )


def claim(record: Record, range_: str) -> Network:
    """Take a free network: the process that creates its bridge owns it."""
    ours = bridges()
    for name in [name for name, one in ours.items() if not one.owner]:
        run("ip", "link", "delete", name)  # its maker died between two commands
    before = next((one.forwarding for one in ours.values() if one.owner), FORWARD.read_text().strip())
    reason = ""
    for network in free_networks(record, range_):
        name = bridge_name(network)
        made = attempt("ip", "link", "add", name, "type", "bridge")
        if made.returncode == 0:
            run("ip", "link", "set", name, "alias", f"{record.id} {before}")
            return network
        if "exists" not in made.stderr:
            reason = made.stderr.strip()
            break
    sys.exit(f"This host cannot make a bridge ({reason}): {VAGRANT}.")


def open_way_out(network: Network) -> bool:
    """Give the bridge its address and its way out. Return whether the firewall or forwarding changed."""
    bridge = bridge_name(network)
    run("ip", "address", "replace", f"{network[1]}/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")
    changed = firewall.open_for(bridge, network)
    if FORWARD.read_text().strip() != "1":
        FORWARD.write_text("1")
        changed = True
    return changed


def close(record: Record) -> None:
    """Remove the record's bridge and its firewall rules; after the last bridge, restore ip_forward."""
    with lock():
        ours = bridges()
        for bridge in [name for name, one in ours.items() if one.owner == record.id]:
            last = not [name for name, one in ours.items() if one.owner and name != bridge]
            if last and FORWARD.read_text().strip() != ours[bridge].forwarding:
                FORWARD.write_text(ours[bridge].forwarding)
            firewall.close_for(bridge)
            run("ip", "link", "delete", bridge)
            print(f"removed {bridge}")
