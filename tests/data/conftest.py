"""Where tests find real data: $HVDFILTER_DATA, or `shared/data` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("HVDFILTER_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data here; set HVDFILTER_DATA to the folder that holds it")
    return folder
