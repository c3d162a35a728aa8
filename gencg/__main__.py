"""`python -m gencg` is the `gencg` command."""

from gencg.cli import main

main()
