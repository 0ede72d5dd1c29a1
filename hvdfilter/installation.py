"""What an installation may lack, and the remedies, which a checkout and a pip install do not share.

Imports nothing that may itself be broken, so that every command can say what is wrong.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from hvdfilter.errors import InstallError

_ROOT = Path(__file__).resolve().parent.parent
IN_CHECKOUT = (_ROOT / "Makefile").is_file() and (_ROOT / "csrc").is_dir()


def require_torch() -> None:
    """Import torch; `InstallError` with the reason and the remedy where that fails."""
    try:
        import torch  # noqa: F401
    except Exception as error:  # ImportError, OSError or what else a half-installed torch raises
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise InstallError("torch is not installed: run 'pip install torch'") from error
        raise InstallError(
            f"torch cannot be imported ({reason(error)}): install one that fits this Python and "
            "machine, with 'pip install --force-reinstall torch'"
        ) from error


def sources_digest() -> str:
    """Eight hex digits of this package's Python files: two checkouts may share a version."""
    package, found = Path(__file__).resolve().parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:8]


def reason(error: BaseException | None) -> str:
    """What an exception says, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def build_again(switches: str = "") -> str:
    """The remedy for hvdfilter's own compiled modules; switches, such as "HVDFILTER_CUDA=1 "."""
    if IN_CHECKOUT:
        return f"run 'rm -f hvdfilter/_*.so; {switches}make setup' in {_ROOT}"
    return (
        f"run '{switches}pip install --force-reinstall --no-deps .' in hvdfilter's source folder, "
        "or install its wheel again that way"
    )


def set_up(switches: str = "") -> str:
    """The remedy for what only set-up builds, Horovod above all; switches, as it takes them."""
    if IN_CHECKOUT:
        return f"run '{switches}make setup' in {_ROOT}"
    return f"run '{switches}make setup' in hvdfilter's source folder and use the .venv it makes"
