"""The largest eigenvalue and products against the explicit Hessian; ranks that are threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.sharpness import Eigenvalue, MeanLoss, cross_entropy, largest_eigenvalue
from hvdfilter.sharpness.mean_loss import Losses, Vector
from tests.agreement.worlds import ThreadCollective, all_errors, run_world
from tests.sharpness.cases import CASES, Case, climbing, hessian, perceptron, world

LOSSES: dict[str, Losses] = {"falling": cross_entropy, "climbing": climbing}


@settings(deadline=None, max_examples=6)
@given(
    name=st.sampled_from(sorted(CASES)),
    direction=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 50),
)
def test_it_is_the_largest_eigenvalue_of_the_explicit_hessian(
    name: str, direction: str, seed: int
) -> None:
    # "climbing" makes what was the largest eigenvalue the most negative one, which dominates, so
    # that power iteration without a shift would end there.
    case, losses = CASES[name](seed), LOSSES[direction]
    eigenvalues = np.linalg.eigvalsh(hessian(case, losses))
    loss = MeanLoss(case.model, case.batches(7, 16, 7), losses)
    found = largest_eigenvalue(loss, tolerance=1e-4, most=1000, seed=seed)
    assert found.converged and found.samples == 30
    assert found.value == pytest.approx(eigenvalues[-1], rel=1e-5)
    # The certificate, up to the rounding of float64.
    assert np.abs(eigenvalues - found.value).min() <= found.residual + 1e-9
    assert found.loss == pytest.approx(
        losses(case.model, (case.x, case.labels)).mean().item(), rel=1e-9
    )


def test_the_negative_eigenvalue_dominates_in_climbing() -> None:
    # Or the test above would not show what it says.
    for make in CASES.values():
        eigenvalues = np.linalg.eigvalsh(hessian(make(0), climbing))
        assert -eigenvalues[0] > 2 * eigenvalues[-1] > 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_product_is_the_explicit_hessian_s(name: str) -> None:
    case = CASES[name](3)
    loss = MeanLoss(case.model, case.batches(1, 29))
    vector = np.random.default_rng(0).standard_normal(loss.size)
    expected = hessian(case, cross_entropy) @ vector
    case.model.train()  # BatchNorm's statistics are those of the model all the same
    product, _ = loss.product(vector)
    assert case.model.training and product == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(CASES))
def test_float32_is_good_for_four_digits(name: str) -> None:
    case = CASES[name](0)
    exact = np.linalg.eigvalsh(hessian(case, cross_entropy))[-1]
    model, x = case.model.float(), case.x.float()
    found = largest_eigenvalue(MeanLoss(model, [(x, case.labels)]), tolerance=1e-3)
    assert found.converged and found.value == pytest.approx(exact, rel=1e-4)


@settings(deadline=None, max_examples=10)
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 20),
)
def test_any_split_over_ranks_gives_the_same_eigenvalue(sizes: list[int], seed: int) -> None:
    # Some ranks have nothing; all of them, those too, must see vectors of the same bits.
    case = perceptron(seed)
    case = Case(case.model, case.x[: sum(sizes)], case.labels[: sum(sizes)])
    alone = largest_eigenvalue(MeanLoss(case.model, [(case.x, case.labels)]), seed=seed)
    shares, models = case.batches(*sizes), case.copies(len(sizes))

    def body(collective: ThreadCollective) -> tuple[Eigenvalue, list[bytes]]:
        own = shares[collective.rank]
        loss = Watched(
            models[collective.rank], [own] if len(own[1]) else [], world=world(collective)
        )
        return largest_eigenvalue(loss, seed=seed), loss.seen

    ranks = run_world(len(sizes), body)
    assert all(rank == ranks[0] for rank in ranks)
    found, seen = ranks[0]
    assert found.value == pytest.approx(alone.value, rel=1e-9)
    assert found.products == alone.products == len(seen)


class Watched(MeanLoss):
    """Notes the bits of every vector that the Hessian is multiplied with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[bytes] = []

    def product(self, vector: Vector) -> tuple[Vector, float]:
        self.seen.append(vector.tobytes())
        return super().product(vector)


def test_a_seed_gives_the_same_bits_and_another_the_same_eigenvalue() -> None:
    case = perceptron(1)
    loss = MeanLoss(case.model, case.batches(10, 20))
    first, again, other = (largest_eigenvalue(loss, tolerance=1e-6, seed=s) for s in (0, 0, 1))
    assert first == again
    assert other.value == pytest.approx(first.value, rel=1e-9) and other != first


def test_what_did_not_converge_says_so() -> None:
    case = perceptron(0)
    found = largest_eigenvalue(MeanLoss(case.model, case.batches(30)), tolerance=1e-9, most=2)
    assert not found.converged and found.products == 2 and found.residual > 1e-9 * found.value


def test_a_quadratic_s_eigenvalue_is_its_own_and_a_flat_loss_has_zero() -> None:
    # (w . x)^2 / 2 with orthogonal x: the Hessian is diagonal, so the answer needs no solver.
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.diag(torch.tensor([1.0, 5.0, 2.0])).double()
    half = MeanLoss(model, [x], lambda model, batch: model(batch)[:, 0] ** 2 / 2)
    assert largest_eigenvalue(half, tolerance=1e-8).value == pytest.approx(25 / 3, rel=1e-12)
    flat = largest_eigenvalue(MeanLoss(model, [x], lambda model, batch: model(batch)[:, 0]))
    assert flat.converged and flat.value == 0


def test_attention_is_differentiated_twice() -> None:
    # torch's faster kernels refuse to be; the plain formula is written out for the oracle.
    class Attention(nn.Module):
        def __init__(self, plain: bool) -> None:
            super().__init__()
            self.plain = plain
            torch.manual_seed(0)
            self.inner, self.out = nn.Linear(4, 12), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # One head, as an axis of its own: the faster kernels want four.
            q, k, v = self.inner(x)[:, None].chunk(3, -1)
            if self.plain:
                mixed = ((q @ k.mT) / 2).softmax(-1) @ v
            else:
                mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(mixed.mean((1, 2)))

    x, labels = torch.randn(6, 5, 4).double(), torch.tensor([0, 1] * 3)
    exact = hessian(Case(Attention(plain=True).double(), x, labels), cross_entropy)
    found = largest_eigenvalue(MeanLoss(Attention(plain=False).double(), [(x, labels)]))
    assert found.value == pytest.approx(np.linalg.eigvalsh(exact)[-1], rel=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    case = CASES["convolutional"](0)
    case.model.train()
    case.model[1].eval()
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    largest_eigenvalue(MeanLoss(case.model, case.batches(30)))
    assert all(torch.equal(before[n], v) for n, v in case.model.state_dict().items())
    assert [part.training for part in case.model][:3] == [True, False, True]
    assert all(p.grad is None for p in case.model.parameters())


def test_bad_input_is_one_sentence() -> None:
    case = perceptron(0)
    batches = case.batches(30)
    frozen = perceptron(0).model.requires_grad_(False)
    wrong: list[tuple[MeanLoss, dict[str, float], str]] = [
        (MeanLoss(frozen, batches), {}, "no parameter that requires a gradient"),
        (MeanLoss(case.model, []), {}, "no sample to take the mean loss over"),
        (MeanLoss(case.model, iter(batches)), {}, "pass a list or a loader, not a generator"),
        (
            MeanLoss(case.model, batches, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1])),
            {},
            "use reduction='none'",
        ),
        (MeanLoss(case.model, [(case.x * torch.nan, case.labels)]), {}, "is nan on some batch"),
        (
            MeanLoss(case.model, [case.x], lambda m, b: (m(b).sum(1) * 0).abs().sqrt()),
            {},
            "the Hessian of the loss is not finite",
        ),
        (MeanLoss(case.model, batches), {"tolerance": 0.0}, "must be between 0 and 1"),
        (MeanLoss(case.model, batches), {"most": 0}, "at least 1 product"),
    ]
    for loss, options, said in wrong:
        with pytest.raises(InputError, match=said):
            largest_eigenvalue(loss, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["weights", "seed", "nan"])
def test_what_is_wrong_on_one_rank_is_said_on_all(kind: str) -> None:
    right, wrong = perceptron(0), perceptron(5)
    models = right.copies(3)
    if kind == "weights":
        models[1] = wrong.model

    def body(collective: ThreadCollective) -> None:
        odd = collective.rank == 1
        x = right.x * torch.nan if odd and kind == "nan" else right.x
        loss = MeanLoss(models[collective.rank], [(x, right.labels)], world=world(collective))
        largest_eigenvalue(loss, seed=1 if odd and kind == "seed" else 0)

    said = {"weights": "its digest of the weights is", "seed": "its seed is 1", "nan": "is nan"}
    errors = all_errors(3, body)
    assert len(set(errors)) == 1 and errors[0].startswith("InputError: rank 1:")
    assert said[kind] in errors[0]
