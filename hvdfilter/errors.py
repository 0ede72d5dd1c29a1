"""The exceptions a user of hvdfilter meets; each message is one sentence naming thing and remedy.

Nothing here decides when an error is raised, nor how it reaches the other ranks: that is
`Collective.share_error`.
"""

import sys


class InputError(ValueError):
    """What the user gave cannot be used: a name, an option, a file, a tensor."""


class InstallError(ImportError):
    """A part of the installation is missing or broken: torch, or a compiled module."""


class WorldError(RuntimeError):
    """The ranks cannot work together: launcher, Horovod and MPI disagree, or a rank left."""


def on_all_ranks(sentence: str, kind: type[Exception] = InputError) -> Exception:
    """The error of a check that fails on every rank alike, so that none has to tell the others."""
    error = kind(sentence)
    error.on_all_ranks = True  # type: ignore[attr-defined]
    return error


def warn(sentence: str) -> None:
    """Say what went wrong and ends nothing, on standard error."""
    print(f"hvdfilter: warning: {sentence}", file=sys.stderr, flush=True)
