"""A script of four lines leaves a run folder that `report` and `score` serve."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F
from torch.utils.data import DataLoader

import hvdfilter as hf
from hvdfilter import cli
from hvdfilter.policies import score_file
from hvdfilter.report.compare import find_full, summarise
from hvdfilter.training.checkpoints import finished
from tests.distributed.launch import run_command

EPOCHS = 3
# Its set and its network have names, so that `hvdfilter score` finds them.
SCRIPT = """
import sys

import torch
from torch.utils.data import DataLoader

import hvdfilter as hf
from hvdfilter.data import Normalize, open_dataset


def numbers(location, train, limit, description):
    return open_dataset("synthetic:96,1,8,8,4", train=train, limit=limit)


def make_net(in_channels, num_classes, image_size):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(in_channels * image_size**2, num_classes)
    )


def main(policy, epochs):
    torch.manual_seed(0)
    images = numbers("", True, None, None)
    normalize = Normalize(images.mean, images.std)
    model = make_net(1, 4, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    filt = hf.Filter(len(images), policy, epochs=epochs)
    loader = DataLoader(hf.Indexed(images), 16, sampler=filt.sampler())
    run = hf.Record(filt, f"runs/{policy}", model, optimizer,
                    data="script:numbers", architecture="script:make_net", lr=0.05)
    for epoch in range(epochs):
        filt.begin_epoch(epoch, optimizer)
        right = 0
        for ids, x, y in loader:
            optimizer.zero_grad()
            logits = model(normalize(x))
            filt.loss(logits, y, ids).backward()
            optimizer.step()
            right += int((logits.argmax(1) == y).sum())
        run.epoch(test_accuracy=right / 96)
    print(filt)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "script", raising=False)
    return tmp_path


def test_report_and_score_serve_a_script(script: Path) -> None:
    said = []
    for policy in ("random", "full"):
        command = [sys.executable, "script.py", policy, str(EPOCHS)]
        done = run_command(command, cwd=script)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    run = script / "runs" / "random"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2]
    for record in records:
        # Hides floor(0.3 * 96), at batch 16.
        assert (record["kept"], record["steps"], record["steps_full"]) == (68, 5, 6)
        assert record["hidden"] == 28 and record["samples"] == 96 and record["lr"] == 0.05
        seconds = record["seconds"]
        assert 0 < seconds["training"] <= seconds["total"] and record["cpu_seconds"] > 0
        assert seconds["agreement"] > 0
    summary = summarise(run)
    assert summary.policy == "random" and summary.steps == 15
    full, _ = find_full(run, summarise)
    assert full is not None and full.steps == 18  # the same work, so it is set beside it
    assert "epoch 2 of 3, ended, keeps 68 and hides 28 of 96 samples, lr_scale" in said[0]
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert full.folder.name in page
    assert "Test accuracy against epochs" in page

    # The scores are those of the saved weights, computed here by torch alone.
    assert cli.main(["score", str(run)]) == 0
    sys.path.insert(0, str(script))
    import script as user  # type: ignore[import-not-found]

    images = user.numbers("", True, None, None)
    x, y = images.batch(range(96))
    state = finished(run, hf.init()).state
    model = user.make_net(1, 4, 8)
    model.load_state_dict(state["model"])
    mean, std = (torch.tensor(v).view(1, 1, 1, 1) for v in (images.mean, images.std))
    expected = F.cross_entropy(model((x / 255 - mean) / std), y, reduction="none")
    loss = score_file.read(run / "scores.parquet", ["loss"], 0, 96, 96)["loss"]
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def loop(
    folder: Path, stop: int = EPOCHS, resume: bool = False, **options: object
) -> tuple[torch.nn.Module, hf.Record]:
    torch.manual_seed(0)
    x, model = torch.randn(40, 4), torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    filt = hf.Filter(40, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=EPOCHS)
    loader = DataLoader(range(40), 8, sampler=filt.sampler())  # type: ignore[arg-type]
    run = hf.Record(filt, folder, model, optimizer, resume=resume, **options)  # type: ignore[arg-type]
    for epoch in range(run.next_epoch, stop):
        filt.begin_epoch(epoch, optimizer)
        for ids in loader:
            optimizer.zero_grad()
            filt.loss(model(x[ids]), (x[ids, 0] > 0).long(), ids).backward()
            optimizer.step()
        run.epoch()
    return model, run


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, _ = loop(tmp_path / "whole")
    loop(tmp_path / "cut", stop=2, resume=True)
    again, run = loop(tmp_path / "cut", resume=True)
    assert run.next_epoch == EPOCHS
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    digests = [
        re.findall(r'"mask_digest": "(\w+)"', (tmp_path / name / "metrics.jsonl").read_text())
        for name in ("whole", "cut")
    ]
    assert digests[0] == digests[1] and len(set(digests[0])) > 1


def test_a_run_stopped_before_its_first_checkpoint_has_each_epoch_once(tmp_path: Path) -> None:
    loop(tmp_path / "cut", stop=1)
    for writing in threading.enumerate():
        if writing.name == "checkpoint":
            writing.join()
    shutil.rmtree(tmp_path / "cut" / "checkpoints")
    loop(tmp_path / "cut", resume=True)
    text = (tmp_path / "cut" / "metrics.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in text.splitlines()] == [0, 1, 2]
    with pytest.raises(hf.InputError, match="name='..' is no name for a folder"):
        loop(tmp_path / "cut" / "..")


def test_what_was_not_recorded_is_left_out_and_what_exists_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop(tmp_path / "a")
    assert (
        yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["policy_options"]["tau"] == 0.1
    )
    assert cli.main(["report", str(tmp_path / "a")]) == 0  # without an accuracy
    assert "<td>-</td>" in (tmp_path / "a" / "report.html").read_text()
    assert cli.main(["score", str(tmp_path / "a")]) == 2
    assert "did not say where its data is: give hf.Record(..., data=" in capsys.readouterr().err
    with pytest.raises(hf.InputError, match="a exists: continue it .*resume=True"):
        loop(tmp_path / "a")
    with pytest.raises(hf.InputError, match="lr=None but now lr=0.3"):
        loop(tmp_path / "a", resume=True, lr=0.3)
    with pytest.raises(hf.InputError, match="an option of run b is no plain value"):
        loop(tmp_path / "b", device=torch.device("cpu"))


def test_a_filter_says_what_it_is_doing() -> None:
    filt = hf.Filter(10, "random", epochs=5)
    assert repr(filt).startswith("Filter(Random(") and "not begun, keeps 10 and hides 0" in repr(
        filt
    )
    filt.begin_epoch(1)
    assert "epoch 1 of 5, keeps 7 and hides 3 of 10 samples, lr_scale 1.429" in repr(filt)
    assert repr(filt).endswith("rank 0 of 1)")
