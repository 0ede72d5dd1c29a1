"""The readers in docs/files.md run as they stand, and find what hvdfilter itself finds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hvdfilter import cli
from hvdfilter.inspection.samples import samples_in, samples_of
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.training.run_files import read_config, read_metrics
from hvdfilter.world import current
from tests.training.cases import finish

PAGE = Path(__file__).parents[1] / "docs" / "files.md"


def test_every_reader_of_the_page_runs_and_finds_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(
        limit=150, model="cnn:4", epochs=3, policy_options={"warmup": 1, "tau": 0.0},
        runs=Path("runs"), name="digits",
    )  # fmt: skip
    trainer = Trainer(config, current())
    finish(trainer)
    mask = trainer.filter.mask
    mask.save("epoch.mask")
    assert cli.main(["score", "runs/digits"]) == 0
    capsys.readouterr()
    found = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        space: dict = {}
        exec(compile(block, str(PAGE), "exec"), space)
        found |= space
        assert capsys.readouterr().out.strip()
    run = Path("runs/digits")
    assert found["epochs"] == read_metrics(run) and found["config"] == read_config(run)
    noted = samples_of(run)
    for name, column in noted.columns.items():
        np.testing.assert_array_equal(found["columns"][f"column/{name}"], column)
    np.testing.assert_array_equal(found["columns"]["column/label"], noted.labels)
    scores = samples_in(run / "scores.parquet")
    np.testing.assert_array_equal(found["scores"]["loss"], scores.columns["loss"])
    np.testing.assert_array_equal(found["scores"]["label"], scores.labels)
    np.testing.assert_array_equal(found["keep"], mask.numpy())
    assert 0 < found["keep"].sum() < 150


def test_every_field_and_file_of_a_run_is_on_the_page(tmp_path: Path) -> None:
    text = PAGE.read_text()
    config = TrainConfig(data="synthetic:48,1,8,8,4", model="cnn:4", epochs=2, runs=tmp_path)
    trainer = Trainer(config, current())
    records = finish(trainer)
    for record in records:
        for name in record:
            assert f"`{name}`" in text, name
    samples = samples_of(trainer.folder.path)
    for name in (*samples.columns, "label"):
        assert f"`{name}`" in text, name
    for path in trainer.folder.path.iterdir():
        assert path.name in text
