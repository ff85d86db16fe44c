#!/usr/bin/env python3
"""Print the addresses of an inventory's machines, for Ansible and testinfra. Each such inventory links to it.

The system's Python runs this, and pergola is not installed there, so the checkout is added to its path.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # root may run this, and the checkout's owner could not delete its files
sys.path.insert(0, str(Path(__file__).resolve().parents[5]))

from pergola.machines import addresses  # noqa: E402

# absolute() and not resolve(): the link's directory names the environment, not this file's
addresses.show(Path(__file__).absolute().parent)
