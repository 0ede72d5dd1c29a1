"""What a shell offers after Tab, asked of a real bash."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from hvdfilter.cli import main

ASK = """
source /dev/stdin <<'SCRIPT'
%s
SCRIPT
COMP_WORDS=(%s)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_hvdfilter 2> /dev/null
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def offered(script: str, words: str, shell: str = "bash") -> set[str]:
    done = subprocess.run(
        [shell, "-c", ASK % (script, words)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


# Words that bash has parted at `=` and `:`, as it does before it calls the function.
@pytest.mark.parametrize(
    ("words", "wanted", "not_wanted"),
    [
        ("hvdfilter ''", {"train", "compare", "doctor", "launch", "--help"}, {"--policy"}),
        ("hvdfilter tr", {"train"}, {"compare"}),
        ("hvdfilter train --ba", {"--batch-size", "--batch-growth"}, {"--epochs"}),
        ("hvdfilter score --", {"--data", "--json", "--color"}, {"--batch-size"}),
        ("hvdfilter train --policy k", {"kakurenbo"}, {"loss"}),
        ("hvdfilter train --policy '=' k", {"kakurenbo"}, {"loss"}),
        ("hvdfilter train --policy '='", {"kakurenbo", "loss"}, {"--json"}),
        ("hvdfilter train --data ''", {"digits", "parquet:", "synthetic:"}, {"cnn"}),
        ("hvdfilter train --fp16_allreduce t", {"true"}, {"false"}),
        ("hvdfilter train --color a", {"auto", "always"}, {"never"}),
        ("hvdfilter launch --re", {"--restarts"}, {"--name"}),
        ("hvdfilter completion ''", {"bash", "zsh"}, {"train"}),
        # Files are the shell's own business.
        ("hvdfilter report ru", set(), {"train"}),
    ],
)
def test_bash(script: str, words: str, wanted: set[str], not_wanted: set[str]) -> None:
    found = offered(script, words)
    assert wanted <= found and not not_wanted & found


def test_zsh_takes_the_same_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert "bashcompinit" in script.splitlines()[0]
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    done = subprocess.run(["zsh", "-fc", script], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and not done.stderr
