"""``python -m shrinkbench`` is the command line."""

from shrinkbench.cli import main

main()
