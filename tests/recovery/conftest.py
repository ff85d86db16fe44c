"""These tests break what they run on: one local replica, and nothing else."""

from faults.conftest import (  # noqa: F401  fixtures
    addresses,
    evidence_of,
    figures,
    left_well,
    make_source,
    pytest_configure,
    replica,
    users,
)
