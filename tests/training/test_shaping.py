"""Shaped inputs: against a loop over samples, within their bounds, and what they do to a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter.agreement import Blocks, random
from hvdfilter.errors import InputError
from hvdfilter.training import informed, shaping
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.loop import Trainer
from hvdfilter.world import World, current
from tests.agreement.worlds import run_world
from tests.training.cases import Stepper, finish, network, same_weights, stopped_and_resumed


def shaped_by_hand(
    net: nn.Module, x: Tensor, y: int, sign: int, radius: float, norm: str, steps: int
) -> Tensor:
    """One sample alone: projected gradient steps on its cross entropy, written out."""
    here = x.clone()
    for number in range(steps):
        point = here.clone().requires_grad_()
        loss = -net(point[None]).log_softmax(1)[0, y]
        loss.backward()
        slope = point.grad
        length = 2 * 2.5 / steps * (1 - number / steps) * radius
        if norm == "linf":
            here = here + sign * length * slope.sign()
            here = torch.clamp(here, x - radius, x + radius)
        else:
            here = here + sign * length * slope / slope.norm()
            away = here - x
            here = x + away * min(1.0, radius / float(away.norm()))
        here = here.clamp(0, 1)
    return here


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.1), ("l2", 0.4)])
@pytest.mark.parametrize("kind", ["friendly", "adversarial"])
def test_inputs_move_as_the_loop_moves_them(
    kind: str, norm: str, radius: float, steps: int
) -> None:
    # In float64, where no sign of a gradient is decided by rounding.
    net = network().double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 3, 3, generator=generator).double().round(decimals=1)  # some at the edge
    y = torch.randint(0, 3, (12,), generator=generator)
    how = shaping.make(kind, epsilon=radius, norm=norm, steps=steps)
    moved, own = shaping.shaped(net, x, y, how, radius)
    sign = {"friendly": -1, "adversarial": 1}[kind]
    for row in range(12):
        by_hand = shaped_by_hand(net, x[row], int(y[row]), sign, radius, norm, steps)
        torch.testing.assert_close(moved[row], by_hand, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(own, net(x))
        before, after = (F.cross_entropy(net(at), y, reduction="none") for at in (x, moved))
    assert (sign * (after - before) > 0).all()  # eased, or made harder, every one of them


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["friendly", "adversarial"]),
    st.sampled_from(["linf", "l2"]),
    st.floats(1e-3, 4),
    st.integers(1, 5),
    st.integers(0, 1 << 20),
)
def test_they_stay_in_the_ball_and_in_the_box(
    kind: str, norm: str, radius: float, steps: int, seed: int
) -> None:
    net, generator = network(), torch.Generator().manual_seed(seed)
    x = torch.rand(5, 1, 3, 3, generator=generator)
    how = shaping.make(kind, epsilon=radius, norm=norm, steps=steps)
    moved, _ = shaping.shaped(net, x, torch.tensor([0, 1, 2, 0, 1]), how, radius)
    assert moved.min() >= 0 and moved.max() <= 1
    away = (moved - x).flatten(1)
    size = away.abs().amax(1) if norm == "linf" else away.norm(dim=1)
    assert (size <= radius * (1 + 1e-5) + 1e-6).all() and (size > 0).all()
    assert all(p.grad is None for p in net.parameters())


def test_friendly_inputs_end_at_their_share_of_the_run() -> None:
    how = shaping.make("friendly", epsilon=0.2, until=0.5)
    assert how.radius(0) == 0.2 and how.radius(0.25) == pytest.approx(0.05)
    assert how.radius(0.5) == how.radius(0.7) == how.radius(1) == 0


def untouched(options: dict, dropout: float = 0.0) -> tuple[Stepper, nn.Module, Tensor]:
    """One step at rate 0 over all 24 samples; the stepper, its network and the step's loss."""
    model = nn.Sequential(network(), nn.Dropout(dropout), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    how = shaping.make("adversarial", epsilon=0.2, steps=3, **options)
    policy = informed.Noting(hf.policies.make("full"), "loss")
    stepper = Stepper(model, optimizer, policy, 24, shaping=how)
    (ids,) = stepper.batches(0, 24)
    loss = stepper(ids)
    stepper.filter.end_epoch()
    return stepper, model, loss


def test_noted_scores_are_those_of_the_inputs_as_they_are() -> None:
    # All are perturbed: BatchNorm's statistics may move by the training pass alone, but the noted
    # scores are those of an eval pass before it.
    stepper, model, loss = untouched({"share": 1.0})
    pristine = nn.Sequential(network(), nn.Dropout(0), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        clean = F.cross_entropy(pristine(stepper.prepare(stepper.x)), stepper.y, reduction="none")
    noted = stepper.filter.book.column("loss")
    np.testing.assert_allclose(noted, clean.numpy(), rtol=1e-5, atol=1e-6)
    assert model.training and model[2].num_batches_tracked == 1
    assert loss > clean.mean() + 0.05
    assert stepper.step.record() == {"shaped": 24}
    assert stepper.filter.costs.seconds["shaping"] > 0


def test_only_the_picked_are_moved_and_the_others_are_scored_as_they_were_trained() -> None:
    stepper, model, _ = untouched({"share": 0.25})
    assert stepper.step.record() == {"shaped": 6}
    (ids,) = stepper.batches(1, 24)
    picked = stepper.step.shaper._picked
    # The six of the highest losses in the book.
    losses = stepper.filter.book.column("loss")
    assert set(picked.kept_ids()) == set(np.argsort(-losses, kind="stable")[:6])
    batch = stepper.step.shaper(ids, stepper.x[ids], stepper.y[ids])
    moved = (batch.x != stepper.x[ids].float()).flatten(1).any(1)
    assert set(ids[moved].tolist()) == set(picked.kept_ids())
    logits = torch.randn(24, 3, requires_grad=True)
    clean = batch.clean(logits)
    assert torch.equal(clean[~moved], logits.detach()[~moved]) and not clean.requires_grad
    with torch.no_grad():
        own = model.eval()(stepper.prepare(stepper.x[ids[moved]]))
    torch.testing.assert_close(clean[moved], own)


@pytest.mark.parametrize("by", ["loss", "margin"])
def test_the_pick_is_exact_on_any_number_of_ranks(by: str) -> None:
    # Losses of many ties, samples that were never scored, and half of the set hidden.
    n, share, seed = 61, 0.3, 3
    rng = np.random.default_rng(1)
    scores = {"loss": rng.exponential(size=n).round(1).astype(np.float32)}
    scores["margin"] = rng.normal(size=n).round(1).astype(np.float32)
    seen = rng.uniform(size=n) < 0.8
    key = np.where(seen, scores["loss"] if by == "loss" else -scores["margin"], np.inf)
    chance = random.uniform_keys(seed, 1, np.arange(n), informed._STREAM)

    def body(collective):
        world = World(collective.rank, collective.size, 0, torch.device("cpu"), collective)
        policy = informed.Noting(hf.policies.make("random", keep=0.5), by)
        filt = hf.Filter(n, policy, epochs=2, world=world, seed=seed)
        filt.begin_epoch(0)
        blocks = Blocks(n, collective.size)
        mine = np.arange(blocks.start(collective.rank), blocks.stop(collective.rank))
        mine = mine[seen[mine]]
        filt.book.observe(mine, {name: column[mine] for name, column in scores.items()})
        filt.begin_epoch(1)
        return informed.pick(filt, by, share).numpy(), filt.mask.numpy()

    for ranks in (1, 2, 3, 4):
        for picked, mask in run_world(ranks, body):
            kept = sorted(np.flatnonzero(mask), key=lambda i: (-key[i], -chance[i], i))
            assert set(np.flatnonzero(picked)) == set(kept[: int(share * mask.sum())])


def test_a_run_says_how_many_were_shaped_and_what_it_cost(tmp_path: Path) -> None:
    config = TrainConfig(
        data="synthetic:60,1,8,8,4", model="cnn:4", policy="full", epochs=4, batch_size=20,
        warmup_epochs=0, shaping="friendly", shaping_options={"until": 0.5}, runs=tmp_path,
    )  # fmt: skip
    records = finish(Trainer(config, current()))
    assert [record["shaped"] for record in records] == [60, 60, 0, 0]
    assert all(record["seconds"]["shaping"] > 0 for record in records)
    assert all(record["seconds"]["shaping"] < record["seconds"]["training"] for record in records)


@pytest.mark.parametrize("after", [2, 5])
@pytest.mark.parametrize("kind", ["friendly", "adversarial"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, kind: str, after: int) -> None:
    # Four steps an epoch: in the middle of the first, and of the second, whose pick is by score.
    config = TrainConfig(
        data="synthetic:80,1,8,8,4", model="cnn:4", policy="full", epochs=3, batch_size=20,
        warmup_epochs=0, shaping=kind, exchange="float16",
    )  # fmt: skip
    whole, resumed = stopped_and_resumed(config, tmp_path, after)
    assert same_weights(whole, resumed)
    lines = [t.folder.metrics.read_text().splitlines() for t in (whole, resumed)]
    told = [[json.loads(line)["shaped"] for line in each] for each in lines]
    assert told[0] == told[1] and len(told[0]) == 3


def test_a_network_trained_on_harder_inputs_survives_more() -> None:
    # Two features: a strong one that a small perturbation overturns, a weak one that it does not.
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (300,), generator=generator)
    side = (2.0 * y - 1)[:, None]
    pixels = 0.5 + torch.cat([0.04 * side.repeat(1, 8), 0.3 * side], 1)
    pixels += torch.cat([torch.zeros(300, 8), 0.25 * torch.randn(300, 1, generator=generator)], 1)
    x = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).view(300, 1, 3, 3)

    def survived(how: shaping.Shaping | None) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        stepper = Stepper(model, optimizer, "full", 300, shaping=how)
        stepper.x, stepper.y = x, y
        for epoch in range(4):
            for ids in stepper.batches(epoch, 30):
                stepper(ids)
        attack = shaping.make("adversarial", epsilon=0.1, steps=10, share=1.0)
        net = nn.Sequential(stepper.prepare, model)
        harder, _ = shaping.shaped(lambda p: net(p * 255), x.float() / 255, y, attack, 0.1)
        with torch.no_grad():
            return float((net(harder * 255).argmax(1) == y).double().mean())

    hardened = shaping.make("adversarial", epsilon=0.1, share=1.0)
    assert survived(hardened) > survived(None) + 0.3


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("freindly", {}, "shaping='freindly' is unknown: did you mean 'friendly'"),
        ("friendly", {"epsilom": 1.0}, "no option 'epsilom': did you mean 'epsilon'"),
        ("friendly", {"epsilon": 0.0}, "shaping 'friendly': epsilon=0.0 must be a radius above 0"),
        ("friendly", {"epsilon": "x"}, "epsilon='x' must be of type float"),
        ("friendly", {"steps": 0}, "steps=0 must be at least 1"),
        ("friendly", {"until": 1.5}, "until=1.5 must be a share of the run"),
        ("friendly", {"share": 0.5}, "shaping 'friendly' has no option 'share'"),
        ("adversarial", {"norm": "l3"}, "unknown norm 'l3'"),
        ("adversarial", {"share": 0.0}, "share=0.0 must be a share of the samples"),
        ("adversarial", {"by": "age"}, "by='age' is no score to pick by: choose loss or margin"),
    ],
)
def test_bad_options_are_named(kind: str, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        shaping.make(kind, **options)


def test_options_without_a_shaping_are_refused() -> None:
    with pytest.raises(InputError, match="shaping_options are given without a shaping"):
        TrainConfig(shaping_options={"epsilon": 0.1}).check()


def test_clean_logits_of_another_shape_are_refused() -> None:
    filt = hf.Filter(4, "loss", epochs=1)
    filt.begin_epoch(0)
    logits = torch.zeros(4, 3, requires_grad=True)
    with pytest.raises(InputError, match=r"clean: expected logits \[4, 3\], got \[3, 3\]"):
        filt.loss(logits, torch.zeros(4).long(), torch.arange(4), clean=torch.zeros(3, 3))
