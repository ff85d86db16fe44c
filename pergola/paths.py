"""Where this checkout keeps what the package reads and writes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSIBLE = ROOT / "infra/ansible"
INVENTORIES = ANSIBLE / "inventory"
