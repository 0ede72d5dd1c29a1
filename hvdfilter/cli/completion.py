"""What makes a shell complete `hvdfilter`: one function that holds every option and name.

The shell asks no program while somebody types; what is printed is made of the parsers themselves.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Mapping

from hvdfilter.cli.choices import CHOICES

# An `=` and a `:` part words for bash: after the second, what follows is a file.
_SCRIPT = """\
_hvdfilter() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" offered=""
    COMPREPLY=()
    if [[ "$word" == "=" ]]; then
        word=""
    elif [[ "$before" == "=" ]]; then
        before="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
    before="${{before//_/-}}"
    if [[ $COMP_CWORD -eq 1 ]]; then
        offered="{commands} --help --version"
    elif [[ "$word" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} $before" in
{names}
        esac
    fi
    if [[ -n "$offered" ]]; then
        COMPREPLY=($(compgen -W "$offered" -- "$word"))
        if [[ "${{COMPREPLY[*]}}" == *: ]] && type compopt > /dev/null 2>&1; then
            compopt -o nospace
        fi
    fi
}}
complete -o default -F _hvdfilter hvdfilter
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def script(parsers: Mapping[str, ArgumentParser], shell: str) -> str:
    """For bash or zsh. parsers: of the commands, by name."""
    options, names = [], []
    for command, parser in parsers.items():
        found = {name: one for one in parser._actions for name in _long(one)}
        options.append(f'            {command}) offered="{" ".join(found)}" ;;')
        # Names of a positional argument follow the command itself.
        first = [(command, one) for one in parser._actions if not one.option_strings]
        for name, action in [*first, *found.items()]:
            if offered := _names(action):
                before = f"{command} {name}"
                names.append(f'            "{before}") offered="{" ".join(offered)}" ;;')
    text = _SCRIPT.format(
        commands=" ".join(parsers), options="\n".join(options), names="\n".join(names)
    )
    return text if shell == "bash" else _ZSH + text


def _long(action: Action) -> list[str]:
    return [name.replace("_", "-") for name in action.option_strings if name.startswith("--")]


def _names(action: Action) -> tuple[str, ...]:
    """What may follow an option, where that is known."""
    if "{true,false" in str(action.metavar):
        return "true", "false"
    return tuple(action.choices or CHOICES.get(action.dest, ()))
