"""What stands in this checkout, for tests that look at files."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
INFRA = ROOT / "infra"
ANSIBLE = INFRA / "ansible"
ROLES = sorted(path.parent.name for path in ANSIBLE.glob("roles/*/meta"))
# what is installed on servers: all but the playbooks and the README
SERVER_FILES = sorted(
    path
    for path in INFRA.rglob("*")
    if path.is_file() and path.suffix != ".pyc" and ANSIBLE not in path.parents and path.name != "README.md"
)
TEMPLATES = [path for path in SERVER_FILES if path.suffix == ".j2"]


def read_yaml(path):
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


def options(role, entry_point="main"):
    """What a role's argument specs describe: {name of a setting or an input: its argument spec}."""
    points = read_yaml(ANSIBLE / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return points.get(entry_point, {}).get("options", {})


def servers_table():
    """docs/servers.md: {server: {column: cell}}, in its order."""
    lines = (ROOT / "docs/servers.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
