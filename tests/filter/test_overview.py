"""What a line of metrics says of a mask, against plain loops over masks, labels and scores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import hvdfilter as hf
from hvdfilter.filter.histogram import SCALES, Scale
from hvdfilter.filter.overview import LONG
from hvdfilter.world import World
from tests.agreement.worlds import run_world
from tests.filter.cases import CLASSES, run_epoch, scored

N, EPOCHS, BATCH = 203, 14, 16  # no multiple of 8: the last byte of the mask is not full
LABELS = np.arange(N) % CLASSES
RNG = np.random.default_rng(3)
GAPS = [torch.tensor(RNG.normal(1, 3, N), dtype=torch.float32) for _ in range(EPOCHS)]
POLICY = {"warmup": 1, "tau": 0.1, "keep": 0.5}


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
@given(data=st.data(), n=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_bins_are_those_of_numpy(scale: Scale, data: st.DataObject, n: int) -> None:
    edges = scale.edges
    anything = st.floats(width=32, allow_nan=False)
    near = st.sampled_from([*edges, *np.nextafter(edges, np.inf), *np.nextafter(edges, -np.inf)])
    values = data.draw(arrays(np.float32, n, elements=anything | near.map(np.float32)))
    hidden, seen = data.draw(arrays(bool, n)), data.draw(arrays(bool, n))
    assert (np.diff(edges) > 0).all() and (edges == edges.astype(np.float32)).all()
    expected = []
    for these in (~hidden, hidden):
        finite = values[these & seen & np.isfinite(values)].astype(np.float64)
        inside = np.clip(finite, edges[0], np.nextafter(edges[-1], -np.inf))
        expected.append(np.histogram(inside, edges)[0])
    assert scale.histogram(values, hidden, seen).tolist() == np.concatenate(expected).tolist()


def overviews(collective: Any, epochs: int = EPOCHS) -> tuple[list[dict], list[np.ndarray]]:
    world = World(collective.rank, collective.size, 0, torch.device("cpu"), collective)
    policy = hf.policies.make("kakurenbo", **POLICY)
    filt = hf.Filter(N, policy, epochs=EPOCHS, world=world, labels=LABELS, history=True)
    said, masks = [], []
    for epoch in range(epochs):
        # Without looking at hidden samples again every other epoch, so that some stay hidden long.
        run_epoch(filt, epoch, GAPS[epoch], rescore=epoch % 3 < 2)
        said.append(filt.overview.record)
        masks.append(filt.mask.numpy())
    return said, masks


def test_an_overview_is_what_plain_loops_count_on_any_number_of_ranks() -> None:
    worlds = {size: run_world(size, overviews) for size in (1, 2, 3)}
    said, masks = worlds[1][0]
    for world in worlds.values():
        for other in world:
            assert json.dumps(other[0]) == json.dumps(said)
    before, since = np.ones(N, bool), np.full(N, LONG)
    value, hides = {name: np.full(N, np.nan) for name in ("loss", "confidence", "margin")}, 0
    for epoch, (one, kept) in enumerate(zip(said, masks, strict=True)):
        assert one["classes"]["samples"] == [int((LABELS == c).sum()) for c in range(CLASSES)]
        assert one["classes"]["kept"] == [int((LABELS[kept] == c).sum()) for c in range(CLASSES)]
        stayed = [not kept[i] for i in range(N) if not before[i]]
        assert one["mask"]["stayed"] == (sum(stayed) / len(stayed) if stayed else None)
        assert one["mask"]["turnover"] == sum(kept != before) / N
        since = np.where(kept, 0, np.minimum(since + 1, LONG))
        assert one["mask"]["since_seen"] == [int((since == age).sum()) for age in range(LONG + 1)]
        assert ("scores" in one) == (epoch > 0)  # the first mask is chosen by nothing
        for name, column in value.items() if epoch else ():
            score = one["scores"][name]
            assert sum(score["kept"]) == kept.sum() and sum(score["hidden"]) == (~kept).sum()
            edges = np.array(score["edges"])
            inside = np.clip(column, edges[0], np.nextafter(edges[-1], 0))
            assert score["hidden"] == np.histogram(inside[~kept], edges)[0].tolist()
            expected = None
            if name != "margin" and not kept.all():
                expected = column[~kept].max() if name == "loss" else column[~kept].min()
            assert score["threshold"] == expected
        hides += (~kept).sum()
        noted = kept if epoch % 3 == 2 else np.ones(N, bool)
        gap = GAPS[epoch].double().numpy()
        loss = np.log1p((CLASSES - 1) * np.exp(-gap))
        # As the kernels round them, so that a value at an edge is counted alike.
        scores = hf.score(
            torch.nn.functional.one_hot(torch.tensor(LABELS), CLASSES) * GAPS[epoch][:, None],
            torch.tensor(LABELS),
        )
        np.testing.assert_allclose(scores.loss.double(), loss, rtol=1e-4, atol=1e-6)
        for name in value:
            value[name] = np.where(noted, getattr(scores, name).numpy(), value[name])
        before = kept
    assert hides > N and max(one["mask"]["since_seen"][2] for one in said) > 0


def test_history_changes_no_mask_and_policies_do_not_see_it() -> None:
    masks = []
    for history in (False, True):
        filt = hf.Filter(
            N,
            hf.policies.make("kakurenbo", **POLICY),
            epochs=EPOCHS,
            labels=LABELS,
            history=history,
        )
        for epoch in range(4):
            run_epoch(filt, epoch, GAPS[epoch])
            masks.append(filt.mask.digest)
        assert bool(filt.overview.record) == history
    assert masks[:4] == masks[4:] and len(set(masks)) > 2


def test_an_epoch_taken_up_in_its_middle_says_the_same() -> None:
    def start() -> hf.Filter:
        return hf.Filter(
            N, hf.policies.make("kakurenbo", **POLICY), epochs=EPOCHS, labels=LABELS, history=True
        )

    whole, half, resumed = start(), start(), start()
    for filt in (whole, half):
        run_epoch(filt, 0, GAPS[0])
        run_epoch(filt, 1, GAPS[1])
        filt.begin_epoch(2)
    drawn = iter(half.sampler())
    scored(half, torch.tensor([next(drawn) for _ in range(BATCH)]), GAPS[2])
    half.settle()  # newer scores are in the book: the mask was not chosen by these
    resumed.load_state_dict(half.state_dict())
    assert resumed.overview.record == whole.overview.record != {}
    # And so does the epoch after it, which looks back at the mask of this one.
    rest = torch.tensor(list(resumed.sampler()))
    for ids in rest.split(BATCH):
        scored(resumed, ids, GAPS[2])
    for ids in torch.tensor(list(whole.sampler())).split(BATCH):
        scored(whole, ids, GAPS[2])
    assert resumed.begin_epoch(3).digest == whole.begin_epoch(3).digest
    assert resumed.overview.record == whole.overview.record
    assert resumed.overview.record["mask"]["stayed"] is not None


def test_a_state_of_an_earlier_version_is_taken_up_without_history() -> None:
    filt = hf.Filter(N, "full", epochs=3, labels=LABELS, history=True)
    run_epoch(filt, 0, GAPS[0])
    filt.end_epoch()
    state = filt.state_dict()
    del state["overview"]
    state["rows"] = {k: v for k, v in state["rows"].items() if not k.startswith("column/margin")}
    again = hf.Filter(N, "full", epochs=3, labels=LABELS, history=True)
    again.load_state_dict(state)
    assert again.next_epoch == 1 and again.overview.record == {}
    assert np.isinf(again.book.column("margin_mean")).all()


def test_observations_that_were_saved_without_the_margin_are_refused() -> None:
    def begun(history: bool) -> hf.Filter:
        return hf.Filter(N, "loss", epochs=3, history=history)

    filt = begun(False)
    filt.begin_epoch(0)
    scored(filt, torch.arange(BATCH), GAPS[0])
    with pytest.raises(hf.InputError, match=f"noted no confidence of {BATCH} samples"):
        begun(True).load_state_dict(filt.state_dict())


def test_history_of_a_loss_of_one_s_own_needs_the_scores_named() -> None:
    filt = hf.Filter(40, "loss", epochs=1, history=True)
    filt.begin_epoch(0)
    filt.update(torch.ones(40, requires_grad=True), torch.arange(40))
    with pytest.raises(hf.InputError, match="history=True notes confidence and margin of every"):
        filt.end_epoch()


def test_labels_that_are_no_classes_are_not_counted() -> None:
    for labels in (np.linspace(0, 1, 40), np.arange(40) - 1, np.arange(40) * 1000, None):
        filt = hf.Filter(40, "full", epochs=1, labels=labels, history=True)
        filt.begin_epoch(0)
        assert (
            "classes" not in filt.overview.record and filt.overview.record["mask"]["turnover"] == 0
        )
