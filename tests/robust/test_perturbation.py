"""What a linear model survives: against its definition, and against the attack that searches."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from hvdfilter import InputError
from hvdfilter.robust import Attack, linear_radius, smallest_radius
from hvdfilter.robust.attack import _aim, _start, attack_at

ATTACKS = ("l2", "linf", "l1", "fourier-linf")


def model(seed: int, classes: int = 3) -> tuple[torch.Tensor, ...]:
    """weight [C, 2, 4], bias [C], x [5, 2, 4], labels [5] of which the last is a wrong one."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 2, 4, generator=draw, dtype=torch.float64)
    bias = torch.randn(classes, generator=draw, dtype=torch.float64)
    x = torch.randn(5, 2, 4, generator=draw, dtype=torch.float64)
    labels = (x.flatten(1) @ weight.flatten(1).T + bias).argmax(1)
    labels[-1] = (labels[-1] + 1) % classes
    return weight, bias, x, labels


def worst(difference: np.ndarray, attack: str) -> np.ndarray:
    """The perturbation of size 1 that lowers <difference, x> most, written out for each norm."""
    flat = difference.ravel()
    if attack == "l2":
        step = flat / np.linalg.norm(flat)
    elif attack == "linf":
        step = np.sign(flat)
    elif attack == "l1":
        step = np.eye(flat.size)[np.abs(flat).argmax()] * np.sign(flat[np.abs(flat).argmax()])
    else:
        spectrum = np.fft.fftn(difference, norm="ortho")
        turned = spectrum / np.maximum(np.abs(spectrum), 1e-300)
        step = np.fft.ifftn(turned, norm="ortho").real.ravel()
    return -step.reshape(difference.shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_radius_is_where_the_answer_changes(attack: str, seed: int) -> None:
    weight, bias, x, labels = model(seed)
    radii = linear_radius(weight, x, labels, attack, bias)
    assert radii[-1] == 0 and (radii[:-1] > 0).all()
    for i in range(4):

        def right(r: float, other: int, i: int = i) -> bool:
            """Whether the class still beats `other` under the worst perturbation of size r."""
            d = (weight[labels[i]] - weight[other]).numpy()
            moved = x[i].numpy() + r * worst(d, attack)
            return float((d * moved).sum() + bias[labels[i]] - bias[other]) > 0

        others = [c for c in range(3) if c != labels[i]]
        r = float(radii[i])
        assert all(right(0.999 * r, other) for other in others)
        assert not all(right(1.001 * r, other) for other in others)


def test_two_classes_are_one_row() -> None:
    weight, bias, x, _ = model(1, 1)
    labels = (x.flatten(1) @ weight[0].flatten() + bias[0] > 0).long()
    for attack in ATTACKS:
        radii = linear_radius(weight[0], x, labels, attack, bias[0])
        size = {
            "l2": weight.norm(),
            "linf": weight.abs().sum(),
            "l1": weight.abs().max(),
            "fourier-linf": torch.fft.fft2(weight[0], norm="ortho").abs().sum(),
        }[attack]
        expected = (x.flatten(1) @ weight[0].flatten() + bias[0]).abs() / size
        torch.testing.assert_close(radii, expected)


def test_a_transform_of_the_last_axis_leaves_the_others_side_by_side() -> None:
    weight, bias, x, labels = model(2)
    radii = linear_radius(weight, x, labels, "fourier-linf", bias, dims=1)
    i, own = 0, int(labels[0])
    gaps = [
        float(((weight[own] - weight[c]) * x[i]).sum() + bias[own] - bias[c])
        / np.abs(np.fft.fft((weight[own] - weight[c]).numpy(), norm="ortho")).sum()
        for c in range(3)
        if c != own
    ]
    assert float(radii[i]) == pytest.approx(min(gaps))


def test_classes_of_equal_weights_never_cross() -> None:
    x, labels = torch.ones(1, 2), torch.tensor([0])
    weight = torch.ones(2, 2)
    assert linear_radius(weight, x, labels, bias=torch.tensor([1.0, 0.0])).isinf()
    assert linear_radius(weight, x, labels, bias=torch.tensor([0.0, 0.0])) == 0  # a tie


@pytest.mark.parametrize("attack", ["l2", "linf"])
def test_the_search_finds_what_the_closed_form_says(attack: str) -> None:
    weight, bias, x, labels = model(3)
    found = smallest_radius(
        lambda v: v.flatten(1) @ weight.flatten(1).T + bias,
        *(x, labels, range(5), attack),
        Attack(steps=30, halvings=12, limit=4.0, box=None),
    )
    exact = linear_radius(weight, x, labels, attack, bias)
    assert (found >= exact * (1 - 1e-9)).all()  # nothing smaller exists
    assert (found <= exact * 1.02 + 1e-9).all()


@pytest.mark.parametrize("attack", ["l2", "linf"])
def test_a_sample_is_attacked_alike_in_any_batch(attack: str) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))
    net = net.double().eval()
    x = torch.rand(8, 6, dtype=torch.float64)
    labels = net(x).argmax(1)
    how = Attack(steps=5, restarts=3, halvings=4, seed=4)
    whole = smallest_radius(net, x, labels, range(8), attack, how)
    again = smallest_radius(net, x, labels, range(8), attack, how)
    assert torch.equal(whole, again)
    part = smallest_radius(net, x[5:], labels[5:], range(5, 8), attack, how)
    torch.testing.assert_close(whole[5:], part, rtol=1e-6, atol=1e-9)
    # The starts are of the id and the seed.
    first = _start(x[:2], [7, 3], attack, 4, 1)
    assert torch.equal(first[[1, 0]], _start(x[:2], [3, 7], attack, 4, 1))
    assert not torch.equal(first, _start(x[:2], [7, 3], attack, 5, 1))


@pytest.mark.parametrize("attack", ["l2", "linf"])
def test_the_worst_of_more_starts_is_no_better_for_the_model(attack: str) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3))
    x = torch.rand(32, 4)
    labels = net(x).argmax(1)
    how = Attack(steps=3, restarts=4)
    starts = [
        (_start(x, range(32), attack, 0, number), _aim(net(x), labels, number))
        for number in range(4)
    ]
    for radius in (0.05, 0.2, 0.8):
        wide = torch.full((32,), radius)
        sizes = [attack_at(net, x, labels, wide, attack, how, starts[:n]) for n in (1, 2, 4)]
        assert (sizes[1] <= sizes[0]).all() and (sizes[2] <= sizes[1]).all()
        found = torch.cat(sizes)
        assert (found[found.isfinite()] <= radius * (1 + 1e-5)).all()


def test_a_perturbed_image_stays_in_its_box() -> None:
    seen: list[torch.Tensor] = []

    def net(v: torch.Tensor) -> torch.Tensor:
        seen.append(v.detach().clone())
        return torch.stack([v.sum(1) - 0.2, torch.zeros(len(v))], 1)

    x = torch.tensor([[0.1, 0.9], [0.0, 0.15]])
    labels = torch.tensor([0, 1])
    found = smallest_radius(net, x, labels, [0, 1], "linf", Attack(halvings=12))
    assert all((v > -1e-6).all() and (v < 1 + 1e-6).all() for v in seen)
    # Sum 1 -> 0.2 within the box: 0.1 falls to 0 and 0.9 to 0.2; unboxed 0.4 would do.
    assert found[0] == pytest.approx(0.7, abs=0.01)
    assert found[1] == pytest.approx(0.025, abs=0.003)


def test_what_no_radius_changes_is_infinite_and_what_is_wrong_is_zero() -> None:
    def net(v: torch.Tensor) -> torch.Tensor:
        return torch.stack([v.sum(1) * 0 + 1, v.sum(1) * 0], 1)

    found = smallest_radius(net, torch.rand(2, 3), torch.tensor([0, 1]), [0, 1], "l2")
    assert found[0].isinf() and found[1] == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: linear_radius(torch.ones(2, 3), torch.ones(1, 3), torch.tensor([0]), "l7"), "l7"),
        (lambda: linear_radius(torch.ones(2, 4), torch.ones(1, 3), torch.tensor([0])), "(2, 4)"),
        (
            lambda: linear_radius(
                torch.ones(2, 3), torch.ones(1, 3), torch.tensor([0]), "fourier-linf", dims=2
            ),
            "dims is 2",
        ),
        (
            lambda: smallest_radius(torch.relu, torch.ones(1, 3), torch.tensor([0]), [0], "l1"),
            "unknown norm to search in 'l1'; did you mean",
        ),
        (
            lambda: smallest_radius(torch.log, torch.zeros(1, 3), torch.tensor([0]), [9]),
            "sample 9: the model's logits are not finite",
        ),
        (lambda: Attack(restarts=0), "restarts is 0"),
        (lambda: Attack(limit=-1.0), "limit is -1.0"),
    ],
)
def test_bad_input_is_one_sentence(call, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        call()
