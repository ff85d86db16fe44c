"""A bridge's rules in nftables: its own table, and an accept in each chain that would drop its packets."""

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

from pergola.machines.system import attempt, run


def table(bridge: str, network: ipaddress.IPv4Network) -> str:
    # maxseg: the way out may carry smaller packets than the bridge, as a VPN's does
    return f"""\
table ip {bridge} {{
    chain forward {{
        type filter hook forward priority mangle
        iifname "{bridge}" oifname != "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr {network} ip daddr != {network} masquerade
    }}
}}
"""


Chain = tuple[str, str, str]  # family, table, chain


def foreign_chains(ruleset: list[dict[str, Any]], bridge: str) -> Iterator[tuple[Chain, list[str]]]:
    """The host's own chains that judge forwarded packets, each with the handles of our rules in it."""
    rules = [item["rule"] for item in ruleset if "rule" in item]
    for chain in (item["chain"] for item in ruleset if "chain" in item):
        if chain.get("hook") != "forward" or chain["family"] not in ("ip", "inet"):
            continue
        if re.fullmatch(r"pergola\d+", chain["table"]):
            continue
        key = (chain["family"], chain["table"], chain["name"])
        inside = [rule for rule in rules if (rule["family"], rule["table"], rule["chain"]) == key]
        if inside or chain.get("policy") == "drop":
            yield key, [str(rule["handle"]) for rule in inside if rule.get("comment") == bridge]


def ruleset() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(run("nft", "-j", "-a", "list", "ruleset"))["nftables"]
    return listed


def open_for(bridge: str, network: ipaddress.IPv4Network) -> bool:
    """Return whether a rule was added."""
    changed = False
    if attempt("nft", "list", "table", "ip", bridge).returncode:
        run("nft", "-f", "-", input=table(bridge, network))
        changed = True
    # An accept in our own table does not end the evaluation of other tables: where Docker or a site drops
    # what it does not accept, the accept must be in that chain.
    for key, handles in foreign_chains(ruleset(), bridge):
        if not handles:
            for direction in ("iifname", "oifname"):
                rule = [direction, bridge, "counter", "accept", "comment", f'"{bridge}"']
                run("nft", "insert", "rule", *key, *rule)
            changed = True
    return changed


def close_for(bridge: str) -> None:
    for key, handles in foreign_chains(ruleset(), bridge):
        for handle in handles:
            run("nft", "delete", "rule", *key, "handle", handle)
    attempt("nft", "delete", "table", "ip", bridge)
