"""``python -m shrinkbench`` is the command line, and so is the script ``shrinkbench``."""

import atexit
import gc
import sys


def main() -> None:
    """Run the command line; Ctrl-C while its modules are read ends it as it does later."""
    atexit.register(gc.freeze)  # nothing is collected at the end of a process: with torch it takes a second
    try:
        from shrinkbench.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
