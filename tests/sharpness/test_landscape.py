"""Filter-normalised directions, and the grid of losses against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hvdfilter.errors import InputError
from hvdfilter.sharpness import MeanLoss, cross_entropy, landscape
from hvdfilter.sharpness.landscape import direction
from tests.agreement.worlds import ThreadCollective, run_world
from tests.sharpness.cases import CASES, convolutional, perceptron, world


def test_each_filter_of_a_direction_has_the_norm_of_the_model_s() -> None:
    model = convolutional(0).model
    with torch.no_grad():
        model[0].weight[2] = 0  # a filter that died
    parameters = [p.detach() for p in model.parameters()]
    drawn = direction(parameters, seed=4, number=0)
    for own, moved in zip(parameters, drawn, strict=True):
        if own.dim() == 1:  # biases, and the scale and shift of BatchNorm
            assert not moved.any()
            continue
        for filter_, along in zip(own, moved, strict=True):
            norms = [float((t.double() ** 2).sum().sqrt()) for t in (filter_, along)]
            assert norms[0] == pytest.approx(norms[1], rel=1e-12)


def test_directions_are_random_and_a_seed_s_own() -> None:
    parameters = [torch.ones(40, 50)]
    drawn = {
        (seed, number): direction(parameters, seed, number)[0].flatten()
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert torch.equal(drawn[0, 0], direction(parameters, 0, 0)[0].flatten())
    keys = list(drawn)
    for at, one in enumerate(keys):
        for other in keys[:at]:
            # 2000 numbers: the cosine of independent directions is 0 up to 1 / sqrt(2000) = 0.022.
            cosine = torch.cosine_similarity(drawn[one], drawn[other], dim=0)
            assert abs(cosine) < 0.1
    # Twice the weights, twice the direction: it is relative to the model.
    twice = direction([2 * parameters[0]], 0, 0)[0].flatten()
    torch.testing.assert_close(twice, 2 * drawn[0, 0])


def test_the_grid_of_a_quadratic_is_its_closed_form() -> None:
    # f(w) = mean (w.x - y)^2 / 2, so f(w + d) = f(w) + g.d + d.H.d / 2 with plain g and H.
    torch.manual_seed(0)
    model = nn.Linear(5, 1, bias=False).double()
    x, y = torch.randn(20, 5).double(), torch.randn(20).double()
    loss = MeanLoss(
        model, [(x[:6], y[:6]), (x[6:], y[6:])], lambda m, b: (m(b[0])[:, 0] - b[1]) ** 2 / 2
    )
    found = landscape(loss, points=5, span=0.8, seed=7)
    w = model.weight.detach()[0]
    first, second = (direction([model.weight], 7, number)[0][0] for number in (0, 1))
    residual = x @ w - y
    slope, curve = x.T @ residual / 20, x.T @ x / 20
    assert found.steps.tolist() == pytest.approx([-0.8, -0.4, 0, 0.4, 0.8])
    for i, up in enumerate(found.steps):
        for j, across in enumerate(found.steps):
            d = across * first + up * second
            expected = (residual**2).mean() / 2 + slope @ d + d @ curve @ d / 2
            assert found.loss[i, j] == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_centre_is_the_model_s_loss_and_the_model_is_left_as_it_was(name: str) -> None:
    case = CASES[name](2)
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    case.model.train()
    found = landscape(MeanLoss(case.model, case.batches(11, 19)), points=3)
    assert case.model.training
    assert all(torch.equal(before[k], v) for k, v in case.model.state_dict().items())
    case.model.eval()
    exact = cross_entropy(case.model, (case.x, case.labels)).mean().item()
    assert found.centre == pytest.approx(exact, rel=1e-12)
    assert len(np.unique(found.loss)) == 9


def test_ranks_share_the_samples_and_draw_one_picture() -> None:
    case = perceptron(0)
    alone = landscape(MeanLoss(case.model, case.batches(30)), points=5)
    models, shares = case.copies(3), case.batches(10, 20)

    def body(collective: ThreadCollective) -> np.ndarray:
        rank = collective.rank  # the last one has no samples
        return landscape(
            MeanLoss(models[rank], shares[rank : rank + 1], world=world(collective)), points=5
        ).loss

    ranks = run_world(3, body)
    assert all(np.array_equal(rank, ranks[0]) for rank in ranks)
    assert ranks[0] == pytest.approx(alone.loss, rel=1e-12)


def test_a_loss_that_overflows_far_out_is_drawn_and_one_at_the_model_is_refused() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.full((3, 2), 40.0)
    far = landscape(MeanLoss(model, [x], lambda m, b: m(b).exp()), points=3, span=9)
    assert np.isfinite(far.centre) and np.isinf(far.loss).any()
    with pytest.raises(InputError, match="the mean loss of the model is inf"):
        landscape(MeanLoss(model, [x], lambda m, b: (9 * m(b)).exp()), points=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"points": 4}, "points is 4; it must be odd"), ({"span": 0.0}, "must be above 0")],
)
def test_bad_options_are_one_sentence(options: dict[str, float], said: str) -> None:
    case = perceptron(0)
    with pytest.raises(InputError, match=said):
        landscape(MeanLoss(case.model, case.batches(30)), **options)  # type: ignore[arg-type]
