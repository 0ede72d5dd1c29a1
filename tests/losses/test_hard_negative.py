"""The loss and its gradient against plain loops, on ranks that are threads; bad input."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import hvdfilter as hf
from hvdfilter.losses import reference, rows
from hvdfilter.world import World
from tests.agreement.worlds import ThreadCollective, all_errors
from tests.losses.oracle import on_threads, slow_losses


def embeddings(kind: str, total: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """float64 [total, size]; "axes": similarities are exactly -1, 0 or 1, so most are ties."""
    make = torch.Generator().manual_seed(seed)
    if kind == "axes":
        at = torch.randint(size, (2, total), generator=make)
        sign = 1.0 - 2 * torch.randint(2, (2, total, 1), generator=make)
        both = torch.nn.functional.one_hot(at, size) * sign.double()
    else:
        both = torch.randn(2, total, size, generator=make, dtype=torch.float64)
    return both[0], both[1]


def oracle(
    images: Tensor, captions: Tensor, margin: float, hinges: str, ids: list[int], weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = images.clone().requires_grad_(), captions.clone().requires_grad_()
    losses = torch.stack(slow_losses(a, b, margin, hinges, ids))
    # Keeps both in the graph where no hinge is active.
    ((losses * weight).sum() + 0 * (a.sum() + b.sum())).backward()
    assert a.grad is not None and b.grad is not None
    return losses.detach(), a.grad, b.grad


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(lambda p: sum(p) >= 2),
    size=st.integers(1, 3),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["axes", "normal"]),
    hinges=st.sampled_from(["max", "sum"]),
    margin=st.sampled_from([0.0, 0.25, 1.5]),
    shared=st.booleans(),
    block=st.sampled_from([1, 7, 1 << 22]),
)
@example([0, 2, 0], 2, 0, "normal", "max", 0.25, False, 1)  # ranks without a pair
def test_any_split_of_the_batch_gives_the_rule_s_losses_and_gradients(
    pairs: list[int],
    size: int,
    seed: int,
    kind: str,
    hinges: str,
    margin: float,
    shared: bool,
    block: int,
) -> None:
    total = sum(pairs)
    images, captions = embeddings(kind, total, size, seed)
    weight = torch.linspace(-1, 2, total, dtype=torch.float64)
    ids = [i // 2 if i < 4 else i for i in range(total)] if shared else list(range(total))
    if len(set(ids)) < 2:
        ids[-1] = 9
    given = torch.tensor(ids) if shared else None
    with patch.object(rows, "BLOCK", block):
        found = on_threads(pairs, images, captions, weight, given, margin=margin, hinges=hinges)
    for ours, theirs in zip(
        found, oracle(images, captions, margin, hinges, ids, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hinges", ["max", "sum"])
@pytest.mark.parametrize("pairs", [[9], [5, 4], [1, 7, 1], [3, 0, 4, 2]])
def test_the_ranks_mean_is_the_batch_s_and_so_is_its_gradient(
    pairs: list[int], hinges: str
) -> None:
    images, captions = embeddings("normal", 9, 4, seed=1)
    values, *gradients = on_threads(pairs, images, captions, None, hinges=hinges)
    mean, *expected = oracle(
        images, captions, 0.2, hinges, list(range(9)), torch.full((9,), 1 / 9.0).double()
    )
    torch.testing.assert_close(values.mean(), mean.mean())
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("hinges", ["max", "sum"])
def test_the_dense_reference_states_the_same_rule(hinges: str) -> None:
    images, captions = embeddings("normal", 8, 3, seed=2)
    for ids in (list(range(8)), [0, 0, 1, 2, 1, 3, 3, 3]):
        losses = reference.hard_negative(
            images, captions, 0.3, hinges=hinges, ids=torch.tensor(ids)
        )
        slow = torch.stack(slow_losses(images, captions, 0.3, hinges, ids))
        torch.testing.assert_close(losses, slow)


@pytest.mark.parametrize("hinges", ["max", "sum"])
def test_gradcheck(hinges: str) -> None:
    images, captions = (x.requires_grad_() for x in embeddings("normal", 6, 3, seed=3))

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return hf.losses.hard_negative(a, b, 0.7, hinges=hinges, reduction="none")

    assert torch.autograd.gradcheck(loss, (images, captions))


def test_float32_agrees_with_the_dense_reference_and_repeats_its_bits() -> None:
    make = torch.Generator().manual_seed(4)
    # More than one block of rows on every rank, and a batch that no matrix kernel likes.
    images, captions = torch.randn(2, 523, 37, generator=make)
    captions += images
    for hinges in ("max", "sum"):
        with patch.object(rows, "BLOCK", 50_000):
            ours, again = (
                on_threads([200, 1, 322], images, captions, torch.ones(523), hinges=hinges)
                for _ in range(2)
            )
        a, b = images.clone().requires_grad_(), captions.clone().requires_grad_()
        losses = reference.hard_negative(a, b, hinges=hinges)
        losses.sum().backward()
        for mine, theirs in zip(ours, (losses.detach(), a.grad, b.grad), strict=True):
            scale = float(theirs.abs().max())
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * scale)
        assert all(torch.equal(x, y) for x, y in zip(ours, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    images, captions = (x.to(dtype) for x in embeddings("normal", 12, 8, seed=5))
    a, b = (x.clone().requires_grad_() for x in (images, captions))
    with torch.autocast("cpu", torch.bfloat16):
        loss = hf.losses.hard_negative(a, b)
    loss.backward()
    c, d = (x.float().requires_grad_() for x in (images, captions))
    expected = reference.hard_negative(c, d).mean()
    expected.backward()
    assert loss.dtype == torch.float32 and a.grad is not None and a.grad.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(a.grad, c.grad.to(dtype))  # type: ignore[union-attr]


def test_local_negatives_are_those_of_the_own_batch() -> None:
    images, captions = embeddings("normal", 7, 3, seed=6)
    found = on_threads([3, 4], images, captions, torch.ones(7).double(), negatives="local")
    for own in (slice(0, 3), slice(3, 7)):
        parts = oracle(
            images[own], captions[own], 0.2, "max", list(range(7)), torch.ones(()).double()
        )
        for ours, theirs in zip(found, parts, strict=True):
            torch.testing.assert_close(ours[own], theirs)
    scalars, *_ = on_threads([3, 4], images, captions, None, negatives="local")
    torch.testing.assert_close(scalars, torch.stack([found[0][:3].mean(), found[0][3:].mean()]))


def test_a_frozen_side_gets_no_gradient_and_the_other_its_own() -> None:
    images, captions = embeddings("normal", 6, 3, seed=7)
    captions.requires_grad_()
    hf.losses.hard_negative(images, captions).backward()
    expected = oracle(
        images, captions.detach(), 0.2, "max", list(range(6)), torch.full((6,), 1 / 6.0).double()
    )
    torch.testing.assert_close(captions.grad, expected[2])
    assert images.grad is None


# What the last rank of two gives wrong, and the sentence that both raise.
ROWS = torch.eye(4)
BAD = {
    "images: expected embeddings [B, D], not list": {"images": [1.0]},
    "captions: expected floating embeddings [B, D], one row a pair, got torch.int64 [4, 4]": {
        "captions": ROWS.long()
    },
    "images: expected floating embeddings [B, D], one row a pair, got torch.float32 [4]": {
        "images": ROWS[0]
    },
    "images are torch.float32 [3, 4] on cpu but captions torch.float32 [4, 4] on cpu: row i of "
    "both is pair i": {"images": ROWS[:3]},
    "images are torch.float64 [4, 4] on cpu but captions torch.float32": {"images": ROWS.double()},
    "margin is -0.1; it must be a number of at least 0": {"margin": -0.1},
    "margin is nan; it must be": {"margin": math.nan},
    "margin is True; it must be": {"margin": True},
    "hinges is 'mean'; use one of 'max', 'sum'": {"hinges": "mean"},
    "reduction is 'sum'; use 'mean' or 'none'": {"reduction": "sum"},
    "negatives is 'all'; use 'global' or 'local'": {"negatives": "all"},
    "ids: expected integers [4], one a pair, got torch.float32 [4]": {"ids": ROWS[0]},
    "captions: row 2 has length nan and so no cosine (1 such rows on this rank)": {
        "captions": ROWS + torch.tensor([[0.0], [0.0], [math.nan], [0.0]])
    },
    "images: row 0 has length 0 and so no cosine (4 such rows": {"images": 0 * ROWS},
    "images: row 0 has length inf and so no cosine": {"images": 1e30 * ROWS},
    "its margin is 0.3 but rank 0 has 0.2; all ranks must pass": {"margin": 0.3},
    "its size of an embedding is 2 but rank 0 has 4;": {
        "images": ROWS[:, :2] + 1,
        "captions": ROWS[:, :2] + 1,
    },
    "its precision is 64 bits but rank 0 has 32 bits;": {
        "images": ROWS.double(),
        "captions": ROWS.double(),
    },
    "its hinges is 'sum' but rank 0 has 'max';": {"hinges": "sum"},
    "its ids is given but rank 0 has None;": {"ids": torch.arange(4)},
    "its gradient is wanted but rank 0 has not wanted;": {
        "images": torch.eye(4, requires_grad=True)
    },
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_one_rank_gives_wrong_is_one_sentence_on_all(sentence: str) -> None:
    def body(collective: ThreadCollective) -> None:
        world = World(collective.rank, 2, 0, torch.device("cpu"), collective)
        arguments = {"images": ROWS, "captions": ROWS, "world": world}
        hf.losses.hard_negative(**arguments | (BAD[sentence] if collective.rank else {}))

    told = all_errors(2, body)
    assert told[0] == told[1] and told[0].startswith(f"InputError: rank 1: {sentence}"), told


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_without_a_negative_is_refused(size: int) -> None:
    def body(collective: ThreadCollective, pairs: int, ids: bool) -> None:
        world = World(collective.rank, size, 0, torch.device("cpu"), collective)
        own = ROWS[: pairs if collective.rank == size - 1 or pairs > 1 else 0]
        same = torch.full((len(own),), 7) if ids else None
        hf.losses.hard_negative(own, own, ids=same, world=world)

    told = all_errors(size, lambda collective: body(collective, 1, False))
    assert set(told) == {
        "InputError: hard_negative needs at least 2 pairs over all ranks, not 1: the negatives of "
        "a pair are the others of the batch"
    }
    told = all_errors(size, lambda collective: body(collective, 3, True))
    assert set(told) == {
        f"InputError: all {3 * size} pairs of the batch have id 7, so none is a negative of "
        "another: draw batches of several ids"
    }
