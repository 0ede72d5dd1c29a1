"""`python -m scripts.fuzz_reader KIND FOLDER FIRST FILES`: what one reader makes of damaged files.

Run by `scripts.fuzz`, which ends it when a file takes too long. One line of JSON for each file, and
one when it begins to read, so that the last one begun is known whatever happens.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import sys
import traceback
import warnings
from pathlib import Path

from hvdfilter.errors import InputError
from scripts.damage import damage
from scripts.fuzz_sets import KINDS

MOST_BYTES = 1 << 30  # of address space beyond what the reader has when the well-formed set is read


def main(name: str, place: str, first: int, files: int) -> None:
    """Read the files of the seeds from `first` to `files`, each damaged in one place or more."""
    faulthandler.enable()
    warnings.simplefilter("ignore")  # Pillow's, of odd metadata
    kind, folder = KINDS[name], Path(place)
    paths = kind.make(folder)
    whole = {path: path.read_bytes() for path in paths}
    kind.read(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before = _peak()
    _say(ready=True)
    for seed in range(first, files):
        draw = random.Random(f"{name} {seed}")
        path = draw.choice(paths)
        path.write_bytes(damage(whole[path], draw))
        _say(begun=seed)
        outcome, said = "read", ""
        try:
            kind.read(folder)
        except InputError as refused:
            outcome, said = "refused", str(refused)
            if "\n" in said or len(said) > 2000:
                outcome = "sentence"
            if _without_memory(refused):
                outcome, said = "memory", traceback.format_exc()
        except BaseException as error:
            outcome = "memory" if _without_memory(error) else "traceback"
            said = traceback.format_exc()
        _say(seed=seed, outcome=outcome, said=said[-2000:], peak=_peak() - before)
        path.write_bytes(whole[path])


def _without_memory(error: BaseException | None) -> bool:
    """Whether the limit was met, even if a sentence was made of it."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
