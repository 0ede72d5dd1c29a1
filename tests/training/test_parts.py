"""A batch in parts, and how precisely and in what layout a network computes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hvdfilter import policies
from hvdfilter.data import to_device
from hvdfilter.errors import InputError, WorldError
from hvdfilter.training import ring
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import current
from tests.training.cases import Stepper, finish, network, same_weights, stopped_and_resumed


@given(size=st.integers(1, 24), part=st.integers(1, 24))
@settings(max_examples=30, deadline=None)
def test_parts_of_any_size_give_the_gradient_and_the_norms_of_the_batch(
    size: int, part: int
) -> None:
    # A network without BatchNorm, whose statistics are those of a part.
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stepper = Stepper(model, optimizer, policies.make("grand", opening=2), 24, part=part)
    ids = stepper.batches(0, size)[0]
    loss = stepper(ids)
    x, y = stepper.prepare(stepper.x[ids]), stepper.y[ids]
    losses = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(loss, losses.mean().detach())
    whole = torch.autograd.grad(losses.mean(), list(model.parameters()), retain_graph=True)
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    norms = []
    for one in losses:
        parts = torch.autograd.grad(one, list(model.parameters()), retain_graph=True)
        norms.append(float(torch.cat([each.flatten() for each in parts]).norm()))
    stepper.filter.settle()
    noted = stepper.filter.book.column("grand")[ids.numpy()]
    np.testing.assert_allclose(noted, norms, rtol=1e-4)


def config(folder: Path, **options: object) -> TrainConfig:
    given = {"limit": 70, "batch_size": 8, "epochs": 2, "model": "cnn:4", "warmup_epochs": 0}
    return TrainConfig(runs=folder, **(given | options))  # type: ignore[arg-type]


def test_a_run_counts_steps_of_all_its_parts_and_takes_their_rate(tmp_path: Path) -> None:
    parts = Trainer(config(tmp_path, accumulate=3, policy="full"), current())
    whole = Trainer(config(tmp_path, batch_size=24, policy="full"), current())
    record = finish(parts)[-1]
    assert (record["steps"], record["batch_size"]) == (3, 24)  # of 70 samples: 24, 24 and 22
    assert parts.peak_lr == whole.peak_lr


def test_a_run_in_parts_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    same = stopped_and_resumed(config(tmp_path, accumulate=3), tmp_path, 4)
    assert same_weights(*same)


def test_bfloat16_computes_products_alone(tmp_path: Path) -> None:
    # Norms of gradients, clusters' neighbour in cost: they are of products in bfloat16, whose
    # error is at most 2^-8 a number.
    noted = {}
    for precision in ("float32", "bfloat16"):
        policy = policies.make("grand", opening=1)
        run = Trainer(config(tmp_path, batch_size=70, precision=precision), current(), policy)
        seen = []
        run.network.register_forward_hook(lambda _, x, logits, seen=seen: seen.append(logits.dtype))
        finish(run)
        assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
        assert {parameter.grad.dtype for parameter in run.model.parameters()} == {torch.float32}
        assert getattr(torch, precision) in seen
        noted[precision] = run.filter.book.column("grand")
    np.testing.assert_allclose(noted["bfloat16"], noted["float32"], rtol=0.05)
    assert not np.array_equal(noted["bfloat16"], noted["float32"])


@pytest.mark.parametrize("policy", ["kakurenbo", "gradient-clustering", "feature-filter"])
def test_bfloat16_serves_what_policies_need(policy: str, tmp_path: Path) -> None:
    record = finish(Trainer(config(tmp_path, precision="bfloat16", policy=policy), current()))[-1]
    assert np.isfinite(record["train_loss"]) and np.isfinite(record["test_loss"])


def test_channels_last_is_the_layout_of_images_and_of_no_gradient(tmp_path: Path) -> None:
    # Horovod refuses a gradient that is not contiguous.
    finals = []
    for layout in (None, True, False):
        run = Trainer(config(tmp_path, policy="full", channels_last=layout), current())
        seen: list[bool] = []
        run.model.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(
                given[0].is_contiguous(memory_format=torch.channels_last)
                and not given[0].is_contiguous()
            )
        )
        # Digits have one channel, whose layouts are one: three are taken of each.
        run.network.prepare = torch.nn.Identity()
        run.model.train()
        x = torch.rand(2, 3, 8, 8)
        with pytest.raises(RuntimeError, match="channels"):
            run.network(x)
        assert seen == [layout is not False]
        finals.append(finish(Trainer(config(tmp_path, channels_last=layout), current())))
        assert all(p.grad is None or p.grad.is_contiguous() for p in run.model.parameters())
    assert finals[0][-1]["train_loss"] == pytest.approx(finals[2][-1]["train_loss"], rel=1e-3)


def test_waiting_for_data_is_a_cost(tmp_path: Path) -> None:
    record = finish(Trainer(config(tmp_path), current()))[-1]
    assert 0 < record["seconds"]["data"] < record["seconds"]["total"]


def test_batches_come_to_the_device_in_their_order() -> None:
    batches = [(torch.tensor([i]), torch.full((1, 2), i), torch.tensor([i])) for i in range(4)]
    moved = list(to_device(batches, torch.device("meta")))
    assert [int(ids) for ids, _, _ in moved] == [0, 1, 2, 3]
    assert {part.device.type for _, x, y in moved for part in (x, y)} == {"meta"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"accumulate": 0}, "accumulate=0 must be at least 1"),
        ({"precision": "float16"}, r"precision='float16' is none \(there are: float32, bfloat16\)"),
        ({"cycle_time_ms": 0.0}, "cycle_time_ms=0.0 must be at least 0.1"),
        ({"cycle_time_ms": float("nan")}, "cycle_time_ms=nan must be at least 0.1"),
        ({"fusion_threshold_mb": -1.0}, "fusion_threshold_mb=-1.0 must be at least 0"),
        (
            {"reproducible": True, "fusion_threshold_mb": 64.0},
            "reproducible=true fuses no gradients, and fusion_threshold_mb=64 does",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TrainConfig(**options).check()  # type: ignore[arg-type]


def test_horovod_reads_its_settings_as_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOROVOD_FUSION_THRESHOLD", "HOROVOD_CYCLE_TIME"):
        monkeypatch.setenv(name, "7")
    ring.start(fusion_mb=2, cycle_ms=2.5)
    assert os.environ["HOROVOD_FUSION_THRESHOLD"] == str(2 * 2**20)
    assert os.environ["HOROVOD_CYCLE_TIME"] == "2.5"
    monkeypatch.setattr(ring, "running_horovod", lambda: SimpleNamespace(size=lambda: 2))
    ring.start(fusion_mb=2, cycle_ms=2.5)  # what it has is what is asked for
    with pytest.raises(WorldError, match="reads HOROVOD_CYCLE_TIME only as it starts"):
        ring.start(cycle_ms=5)
