"""An exception that nobody foresaw, as a command ends by it: one sentence, and where the rest is.

It is still uncaught: Python ends the process, and what ends the other ranks of a job
(`hvdfilter.agreement.uncaught`) calls this in place of Python's own page.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from types import TracebackType

from hvdfilter.installation import reason

LONGEST = 400  # characters of an exception's own words


def in_one_sentence() -> None:
    """Have it said so from here on, in this process."""
    sys.excepthook = say


def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the sentence; the traceback goes to a file of its own."""
    if issubclass(kind, KeyboardInterrupt):
        sentence = "interrupted"
    else:
        frames = traceback.extract_tb(trace)
        where = f", in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = "".join(traceback.format_exception(kind, error, trace))
        sentence = (
            f"{kind.__name__}: {reason(error)[:LONGEST]}{where}; this should not happen: "
            f"{_kept(text)}--debug prints the whole traceback"
        )
    world = sys.modules.get("hvdfilter.world")
    here = world.current() if world is not None and world.started() else None
    place = f"{here.collective.place}: " if here is not None and here.size > 1 else ""
    print(f"hvdfilter: error: {place}{sentence}", file=sys.stderr, flush=True)


def _kept(text: str) -> str:
    """Where the traceback was written, for the sentence; a long run may not be repeated for it."""
    try:
        number, path = tempfile.mkstemp(prefix="hvdfilter-", suffix="-traceback.txt")
        with os.fdopen(number, "w") as file:
            file.write(text)
    except OSError:
        return ""
    return f"{path} has the traceback, and "
