"""How a command says what is wrong: in one sentence, once for all ranks, with an exit code."""

from __future__ import annotations

import sys

from hvdfilter import launchers
from hvdfilter.errors import InputError, InstallError, WorldError
from hvdfilter.exit_codes import BAD_INPUT
from hvdfilter.installation import require_torch


def refuse_on_all_ranks(sentence: str) -> int:
    """Say what is wrong with the command line: once, where a launcher has started several ranks.

    A configuration that one node cannot read is every rank's error: the others, who could, are in
    the first meeting of their command.
    """
    if launchers.started_ranks()[0] > 1:
        try:
            require_torch()
            from hvdfilter.world import current

            current().collective.share_error(InputError(sentence))
        except InputError as shared:
            sentence = str(shared)
        except (InstallError, WorldError, ImportError):
            pass  # the ranks cannot reach each other, and each speaks for itself
    return refuse(sentence)


def refuse(sentence: str, code: int = BAD_INPUT, alone: bool = False, trace: str = "") -> int:
    """Say what is wrong: once for all ranks where they are known, else each for itself.

    alone: this rank met the error by itself, so the others, who may be in a collective, are ended.
    trace: what is printed before the sentence, of who has asked for it.
    """
    world = sys.modules.get("hvdfilter.world")  # not there: nothing has started
    here = world.current() if world is not None and world.started() else None
    alone = alone and here is not None and here.size > 1
    if here is not None and alone:
        sentence = f"{here.collective.place}: {sentence}"
    if here is None or here.rank == 0 or alone:
        print(f"{trace}hvdfilter: error: {sentence}", file=sys.stderr, flush=True)
    if here is not None and alone:
        here.collective.abort(code)
    return code
