"""A step of SteepestDescent is the best of all of its length, over all tensors of a group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdfilter import InputError
from hvdfilter.robust import SteepestDescent

DUAL = {"l2": "l2", "l1": "linf", "linf": "l1"}
VECTORS = st.lists(st.integers(-3, 3), min_size=3, max_size=6).filter(any)


def size(v: np.ndarray, norm: str) -> float:
    return float(np.linalg.norm(v, {"l1": 1, "l2": 2, "linf": np.inf}[norm]))


def moved(gradient: np.ndarray, norm: str, lr: float, normalised: bool) -> np.ndarray:
    """What one step does to two tensors that are one vector."""
    ends = [torch.zeros(1, 2, requires_grad=True), torch.zeros(len(gradient) - 2)]
    ends[1].requires_grad_()
    for end, part in zip(ends, np.split(gradient, [2]), strict=True):
        end.grad = torch.tensor(part, dtype=torch.float32).view_as(end)
    SteepestDescent(ends, lr, norm, normalised).step()
    return torch.cat([end.detach().flatten() for end in ends]).double().numpy()


@pytest.mark.parametrize("norm", DUAL)
@given(values=VECTORS)
@settings(deadline=None)
def test_a_step_falls_by_the_dual_norm(norm: str, values: list[int]) -> None:
    g = np.array(values, float)
    step = moved(g, norm, 0.5, True)
    # Of length lr in the norm; and no vector of that length has a smaller product with g (Hoelder).
    assert size(step, norm) == pytest.approx(0.5, rel=1e-5)
    assert step @ g == pytest.approx(-0.5 * size(g, DUAL[norm]), rel=1e-5)
    full = moved(g, norm, 0.5, False)
    assert full == pytest.approx(step * size(g, DUAL[norm]), rel=1e-5)


def test_coordinate_descent_moves_the_first_of_equals_alone() -> None:
    assert moved(np.array([1.0, -4, 4, 0]), "l1", 1.0, True).tolist() == [0, 1, 0, 0]


def test_in_l2_it_is_gradient_descent() -> None:
    torch.manual_seed(0)
    mine, plain = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    plain.load_state_dict(mine.state_dict())
    x = torch.randn(7, 5)
    for model, kind in ((mine, SteepestDescent), (plain, torch.optim.SGD)):
        optimizer = kind(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(mine.weight, plain.weight)
    torch.testing.assert_close(mine.bias, plain.bias)


def test_groups_take_norms_of_their_own_and_parameters_without_gradient_stay() -> None:
    a, b, c = (torch.zeros(2, requires_grad=True) for _ in range(3))
    optimizer = SteepestDescent([{"params": [a, c]}, {"params": [b], "norm": "linf"}], lr=1.0)
    a.grad, b.grad = torch.tensor([3.0, -4]), torch.tensor([3.0, -4])
    optimizer.step()
    assert a.tolist() == [-3, 4] and b.tolist() == [-7, 7] and c.tolist() == [0, 0]
    a.grad = torch.zeros(2)
    b.grad = None
    optimizer.step()
    assert a.tolist() == [-3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"norm": "l9"}, "unknown norm 'l9'"), ({"lr": 0.0}, "lr is 0.0; it must be above 0")],
)
def test_bad_options_are_one_sentence(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SteepestDescent([torch.zeros(1, requires_grad=True)], **options)
