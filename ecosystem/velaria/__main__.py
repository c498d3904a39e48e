"""`python -m velaria` is the command line."""

import sys

from velaria.cli import main

sys.exit(main())
