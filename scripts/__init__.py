"""What `make setup` runs: standard library only, because nothing is installed yet.

Every script here passes through this file first, so an old Python gets a sentence, not a traceback.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the one file that an older Python may read
    sys.exit(
        "hvdfilter set-up stopped: Python {}.{} is too old: install Python 3.10 or newer, or name "
        "one with PYTHON=/path/to/python3.".format(*sys.version_info)
    )
