"""`python3 -m pergola.machines VERB`, the same as `pergola machines VERB`."""

import argparse

from pergola.machines import cli

parser = argparse.ArgumentParser(prog="python -m pergola.machines")
cli.add_arguments(parser)
given = parser.parse_args()
given.run(given)
