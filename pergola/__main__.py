"""`python -m pergola VERB`, the same as `.venv/bin/pergola VERB`."""

from pergola.cli import main

main()
