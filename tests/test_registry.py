"""Own policies, models and data sets: MODULE:NAME, entry points, near misses; `python -m`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml

from hvdfilter import cli, models, policies
from hvdfilter.data import available, open_dataset
from hvdfilter.errors import InputError
from hvdfilter.registry import Registry
from tests.distributed.launch import run_command

MINE = '''
from dataclasses import dataclass
import functools
from typing import ClassVar

import numpy as np
import torch

from hvdfilter.data import ArrayImages, Augmentation, Description
from hvdfilter.policies import Plan, Policy

number = 3


def nothing(in_channels, num_classes, image_size):
    pass


@dataclass(frozen=True)
class OddIds(Policy):
    """Keep every `step`-th id."""

    name: ClassVar[str] = "odd-ids"
    step: int = 2

    def plan(self, view):
        key = (view.ids % self.step == 1).astype(np.float32)
        return Plan(key, view.num_samples // self.step)


class Net(torch.nn.Sequential):
    def __init__(self, in_channels, num_classes, image_size, hidden="6"):
        pixels = in_channels * image_size**2
        layers = torch.nn.Linear(pixels, int(hidden)), torch.nn.Linear(int(hidden), num_classes)
        super().__init__(torch.nn.Flatten(), *layers)


def plain(in_channels, num_classes, image_size):
    return torch.nn.Flatten()


def adapted(function):
    @functools.wraps(function)
    def made(in_channels, num_classes, image_size):
        return function(num_classes)

    return made


@adapted
def wrapped(number):
    return torch.nn.LazyLinear(number)


def unasked():
    raise AssertionError('it takes nothing of what it would be given')


def stripes(location, train, limit, description):
    rows = int(location or 4)
    labels = np.arange(40 if train else 20) % 2
    data = torch.zeros(len(labels), 1, rows, rows, dtype=torch.uint8)
    data[labels == 1] = 200
    names = ("dark", "light")
    return ArrayImages(
        data[:limit],
        labels[:limit],
        description or Description((1, rows, rows), names, (0.4,), (0.4,), Augmentation()),
    )
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to start in, with a module of the user's own."""
    (tmp_path / "birdwatch.py").write_text(MINE)
    (tmp_path / "halfwritten.py").write_text("raise KeyError('feathers')")
    (tmp_path / "hungry.py").write_text("import birdwatch_plumage")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("birdwatch", "halfwritten", "hungry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_own_policy_model_and_data_reach_the_command_line(mine: Path) -> None:
    # A process of its own, as a user starts it: nothing of this one is on its module path.
    command = [sys.executable, "-m", "hvdfilter", "train", "--epochs", "2", "--batch_size", "8"]
    own = ["--policy", "birdwatch:OddIds", "--policy_options.step", "4"]
    own += ["--model", "birdwatch:Net:5", "--data", "birdwatch:stripes:6"]
    done = run_command([*command, *own], timeout=110, cwd=mine)
    assert done.returncode == 0, done.stderr
    (run,) = (mine / "runs").iterdir()
    assert run.name == "birdwatch-birdwatch-Net-5-birdwatch-OddIds"
    assert yaml.safe_load((run / "config.yaml").read_text())["policy"] == "birdwatch:OddIds"
    assert (run / "metrics.jsonl").read_text().count('"kept": 10,') == 2
    assert cli.main(["score", str(run)]) == 0


def test_own_things_are_made_as_the_built_in_ones_are(mine: Path) -> None:
    assert repr(policies.make("birdwatch:OddIds", step=3)).endswith("OddIds(step=3)")
    net = models.make("birdwatch:Net", 1, 2, 4)
    assert net(torch.zeros(3, 1, 4, 4)).shape == (3, 2) and net[1].out_features == 6
    assert models.make("birdwatch:wrapped", 1, 2, 4).out_features == 2  # by its own parameters
    train = open_dataset("birdwatch:stripes", train=True, limit=10)
    assert len(train) == 10 and train.shape == (1, 4, 4)
    assert len(open_dataset("birdwatch:stripes", train=False, like=train)) == 20


@pytest.mark.parametrize(
    ("make", "text", "sentence"),
    [
        ("policy", "kakurembo", "unknown policy 'kakurembo'; did you mean kakurenbo?"),
        ("policy", "birdwach:OddIds", "unknown policy 'birdwach:OddIds' and no module 'birdwach'"),
        ("policy", "birdwatch:OddId", "has no 'OddId'; did you mean birdwatch:OddIds?"),
        ("policy", "birdwatch:Net", "'birdwatch:Net' is no policy: write a subclass of"),
        ("policy", "birdwatch:OddIds:3", "takes nothing after its name"),
        ("policy", "halfwritten:A", r"halfwritten cannot be imported \(KeyError: 'feathers'\)"),
        ("policy", "hungry:A", "'hungry:A' needs birdwatch_plumage: install it"),
        ("model", "resnt9:32", "unknown model 'resnt9:32'; did you mean resnet9?"),
        ("model", "birdwatch:number", "'birdwatch:number' cannot be called"),
        ("model", "birdwatch:plain:32", r"write FACTORY\(in_channels, .*, form\), the form being"),
        ("model", "birdwatch:unasked", "'birdwatch:unasked' cannot be called: write FACTORY"),
        ("data", "birdwatch:unasked", "'birdwatch:unasked' cannot be called: write READER"),
        ("model", "birdwatch:nothing", "'birdwatch:nothing' is a NoneType, not a torch.nn.Module"),
        ("data", "cifra10:/x", "did you mean cifar10:DIR?"),
        ("data", "birdwatch:number", "'birdwatch:number' cannot be called"),
    ],
)
def test_near_misses_and_what_is_something_else(
    make: str, text: str, sentence: str, mine: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        if make == "policy":
            policies.make(text)
        elif make == "model":
            models.make(text, 1, 2, 4)
        else:
            open_dataset(text, train=True)


def test_entry_points_of_installed_packages(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = mine / "birdwatch-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: birdwatch\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[hvdfilter.policies]\nodd = birdwatch:OddIds\n[hvdfilter.models]\nwide = birdwatch:Net\n"
        "[hvdfilter.data]\nstripes = birdwatch:stripes\ntorn = halfwritten:A\n"
    )
    monkeypatch.syspath_prepend(str(mine))
    assert "odd" in policies.available() and policies.make("odd", step=5)
    assert models.make("wide:9", 1, 2, 4)[1].out_features == 9
    assert open_dataset("stripes:5", train=True).shape == (1, 5, 5)
    assert available()[-2:] == ["stripes", "torn"]
    with pytest.raises(InputError, match="data set 'torn', which an installed package brings as"):
        open_dataset("torn", train=True)
    with pytest.raises(InputError, match="did you mean stripes?"):
        open_dataset("stripe", train=True)
    assert cli.main(["policies"]) == 0
    assert "step=2" in capsys.readouterr().out


def test_a_name_is_given_once() -> None:
    registry: Registry[int] = Registry("number", "hvdfilter.numbers")
    registry.add("one", 1)
    registry.add("one", 1)
    with pytest.raises(InputError, match="a number named 'one' exists already"):
        registry.add("one", 2)
    with pytest.raises(InputError, match="unknown number 'seven'; choose from one, and MODULE"):
        registry.find("seven")


def test_python_m_is_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hvdfilter", "polices"]
    done = run_command(command, cwd=tmp_path)
    assert done.returncode == 2 and "hvdfilter: error:" in done.stderr
    assert "did you mean 'policies'" in done.stderr
