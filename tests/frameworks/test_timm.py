"""timm's loader on an indexed set, which keeps the ids, and its training loop under a filter."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import hvdfilter as hf
from tests.frameworks.cases import LAUNCHERS, run_example


def timm() -> Any:
    """timm.data; skips where it cannot be imported."""
    try:
        return pytest.importorskip("timm.data")
    except RuntimeError as broken:  # a torchvision of another torch
        pytest.skip(f"timm cannot be imported: {broken}")


class Images(Dataset[Any]):
    """Pictures of one grey each, by which a sample is known again."""

    transform: Callable[[Any], torch.Tensor] | None = None

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = pytest.importorskip("PIL.Image").new("RGB", (40, 40), (index * 10,) * 3)
        return (image if self.transform is None else self.transform(image)), index % 3


def test_its_loader_transforms_an_indexed_set_and_its_batches_are_filtered() -> None:
    data = timm()
    images = Images()
    made = data.create_loader(
        hf.Indexed(images), (3, 32, 32), 8, mean=(0.0,) * 3, std=(1.0,) * 3, num_workers=0,
        use_prefetcher=False, device=torch.device("cpu"),
    )  # fmt: skip
    assert images.transform is not None  # what it set on the wrapper reached the set
    filt = hf.Filter(24, hf.policies.make("random", keep=0.5), epochs=2)
    loader = DataLoader(made.dataset, 8, sampler=filt.sampler())
    mask, seen = filt.begin_epoch(0), []
    for ids, x, y in loader:
        assert x.shape == (len(ids), 3, 32, 32)
        torch.testing.assert_close(x.mean((1, 2, 3)), ids * 10 / 255, atol=1e-3, rtol=0)
        filt.loss(x.mean((2, 3)).requires_grad_(), y, ids)
        seen += ids.tolist()
    filt.end_epoch()
    assert sorted(seen) == mask.kept_ids().tolist()


@pytest.mark.distributed
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_example(launcher: str) -> None:
    timm()
    done = run_example("filtered_timm.py", LAUNCHERS[launcher], "--epochs", "7")
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.findall(r"test accuracy (\S+), hidden (\d+), last rate (\S+)", done.stdout)[0]
    assert float(found[0]) > 0.85 and int(found[1]) > 0
    assert float(found[2]) == 1e-6  # the cosine's last one, though steps are fewer
