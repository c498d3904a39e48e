"""`python -m velaria_experimental`: the command line."""

import sys

from velaria_experimental.cli import main

if __name__ == "__main__":
    sys.exit(main())
