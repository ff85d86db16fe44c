"""Runs the parts of the tests and remembers what passed: `python -m tests.proof --help`, from the root."""
