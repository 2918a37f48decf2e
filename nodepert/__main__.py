"""`python -m nodepert` is the command `nodepert`."""

from nodepert.cli import main

main()
