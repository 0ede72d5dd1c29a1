"""The commands about the installation and the program itself: launch, policies, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvdfilter.cli.command import Command

if TYPE_CHECKING:
    from jsonargparse import Namespace


def _policies(options: Namespace) -> int:
    from hvdfilter.report.tables import show_policies

    show_policies(options.json)
    return 0


def _doctor(options: Namespace) -> int:
    from hvdfilter import doctor

    return doctor.main(options.json)


def _launch(options: Namespace) -> int:
    from hvdfilter.launch.command import main

    return main([])  # its arguments never come here: what it says of their absence does


COMMANDS = (
    Command(
        "launch",
        "Run mpirun or the like so that warnings become checkpoints: launch COMMAND.",
        _launch,
        usage="[OPTIONS] COMMAND ...",
        torch=False,
    ),
    Command(
        "policies",
        "List the policies and their options.",
        _policies,
        examples=("hvdfilter policies", "hvdfilter policies --json"),
        first_rank=True,
    ),
    Command(
        "doctor",
        "Check versions, MPI, Horovod, devices and kernels.",
        _doctor,
        examples=("hvdfilter doctor", "mpirun --bind-to none -np 2 hvdfilter doctor"),
    ),
)
