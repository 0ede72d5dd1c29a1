"""`python -m scripts.docs_tools`: what `make docs` needs and is missing is installed.

The packages and their versions are those of the extra `docs` in pyproject.toml; nothing else is
touched.
"""

import re
import subprocess
import sys
from importlib.util import find_spec

from scripts.steps import ROOT

MODULES = ("sphinx", "myst_parser", "furo")


def packages() -> list[str]:
    """The extra `docs`, as pip takes it."""
    line = re.search(r"^docs = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M)
    assert line is not None, "pyproject.toml has no extra docs"
    return re.findall(r'"([^"]+)"', line[1])


def main() -> int:
    """Install what is missing; returns pip's exit code."""
    if all(find_spec(name) for name in MODULES):
        return 0
    command = [sys.executable, "-m", "pip", "install", "--no-input", "-q", *packages()]
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
