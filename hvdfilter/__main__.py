"""The program `hvdfilter` and `python -m hvdfilter`: the command line, and only what it needs."""

import sys


def main() -> int:
    """The exit code. A launcher must hear signals at once: it imports nothing else."""
    if sys.argv[1:2] == ["launch"]:
        from hvdfilter.launch.command import main as launch

        return launch(sys.argv[2:])
    from hvdfilter.cli.program import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
