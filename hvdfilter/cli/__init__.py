"""The command line: `hvdfilter train | compare | score | report | ...`.

It parses, calls the library, and turns errors into one sentence and an exit code. A command is one
`Command`, in the file of its kind; what it needs is imported when it runs, so that help, versions
and refusals come at once.
"""

from hvdfilter.cli.program import main

__all__ = ["main"]
