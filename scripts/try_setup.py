"""`python -m scripts.try_setup CASE [CASE ...]`: set-up tried on machines of many kinds.

Prints a line a case, as a row of the table in docs/setup-trials.md; exits with 1 if one failed,
whose folder then stays for a look. Without a case it lists them.
"""

import argparse
import sys
import time
import traceback

from scripts import trial_bad, trial_wheel  # noqa: F401 - both register cases
from scripts.trial import Trial, TrialError, base_python_version
from scripts.trial_cases import CASES


def attempt(name: str) -> bool:
    """Try one case and print its row; return whether set-up behaved."""
    started, today = time.monotonic(), time.strftime("%Y-%m-%d")
    try:
        seen, passed = CASES[name](), True
    except TrialError as error:
        print(error, file=sys.stderr)
        seen, passed = f"FAILED: {str(error).splitlines()[0]}", False
    except Exception:
        traceback.print_exc()
        seen, passed = "FAILED: the trial itself broke", False
    seconds = max((trial.seconds for trial in Trial.all), default=0)
    python = base_python_version()
    for trial in Trial.all:
        if passed:
            trial.clean()
        else:
            print(f"left for a look: {trial.folder}", file=sys.stderr)
    Trial.all.clear()
    what = (CASES[name].__doc__ or "").strip().splitlines()[0]
    spent = time.monotonic() - started
    times = f"{seconds} | {spent:.0f}" if seconds else f"- | {spent:.0f}"
    print(f"| {name} | {what} | {seen} | {times} | {python} | {today} |")
    sys.stdout.flush()
    return passed


def main() -> int:
    """Try the cases that are named; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    cases = parser.parse_args().cases
    if not cases:
        for name, function in CASES.items():
            print(f"{name:12} {(function.__doc__ or '').strip()}")
        return 0
    return int(not all([attempt(name) for name in cases]))


if __name__ == "__main__":
    sys.exit(main())
