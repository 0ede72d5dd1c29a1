"""How help looks: options with hyphens, defaults where there is one, lines left as they are."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter

_OPTION = re.compile(r"--[\w.]+")


class Formatter(DefaultHelpFormatter):
    """jsonargparse's, without types, which the words say, and defaults that are nothing."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Description and epilog: their lines are examples, and stay lines."""
        return "".join(indent + line for line in text.splitlines(keepends=True))

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        nothing = action.default is None or action.default is SUPPRESS or action.default in ({}, [])
        if nothing or action.default is False or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"

    def _format_action_invocation(self, action: Action) -> str:
        text = super()._format_action_invocation(action)
        return _OPTION.sub(lambda found: found[0].replace("_", "-"), text)
