"""One real run for all tests of the report that need a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvdfilter.training.config import TrainConfig
from hvdfilter.training.start import train
from tests.report.runs import LIMIT


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, so little trained that predictions are wrong; half hidden from the second epoch."""
    config = TrainConfig(
        policy="loss",
        policy_options={"keep": 0.5},
        model="cnn:4",
        epochs=4,
        limit=LIMIT,
        runs=tmp_path_factory.mktemp("trained"),
        name="one",
    )
    return train(config).folder
