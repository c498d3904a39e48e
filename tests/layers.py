"""Checks the imports of all layers against .importlinter.

usage: layers CONFIG
"""

import sys

from importlinter.cli import lint_imports

sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True, no_logo=True))
