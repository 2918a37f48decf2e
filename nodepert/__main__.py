"""`python -m nodepert` is the command `nodepert`."""

from nodepert.cli.app import main

main()
