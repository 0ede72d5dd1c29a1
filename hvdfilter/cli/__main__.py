"""`python -m hvdfilter.cli`: the program, as `python -m hvdfilter` starts it."""

import sys

from hvdfilter.cli.program import run

if __name__ == "__main__":
    sys.exit(run())
