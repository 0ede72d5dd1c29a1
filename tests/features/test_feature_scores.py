"""`hf.feature_scores` in a loop of one's own: what is chosen, saved, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hvdfilter as hf
from hvdfilter.errors import InputError
from hvdfilter.policies import make
from tests.policies.static_cases import largest

N, OPENING = 40, 2
generator = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 6, generator=generator), torch.randint(3, (N,), generator=generator)


def network() -> torch.nn.Sequential:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
    )


def train_epoch(filt: hf.Filter, model: torch.nn.Module, epoch: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    filt.begin_epoch(epoch, optimizer)
    for ids in torch.tensor(list(filt.sampler())).split(8):
        optimizer.zero_grad()
        filt.loss(model(X[ids]), Y[ids], ids).backward()
        optimizer.step()
    filt.end_epoch()


def batches(ids: Any = range(N)) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return [(part, X[part], Y[part]) for part in torch.tensor(list(ids)).split(7)]


def explicit(model: torch.nn.Module) -> np.ndarray:
    """The gradient of the last layer by autograd, a sample at a time, in eval mode."""
    model.eval()
    norms = []
    for i in range(N):
        loss = F.cross_entropy(model(X[i : i + 1]), Y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model[3].parameters()))  # type: ignore[index]
        norms.append(float(sum(g.square().sum() for g in gradients).sqrt()))
    model.train()
    return np.array(norms)


def opened(score: str = "gradient", **options: Any) -> tuple[hf.Filter, torch.nn.Sequential]:
    policy = make("feature-filter", keep=0.5, opening=OPENING, score=score, **options)
    filt, model = hf.Filter(N, policy, epochs=5, labels=Y.numpy()), network()
    for epoch in range(OPENING):
        train_epoch(filt, model, epoch)
    return filt, model


def test_the_largest_gradients_are_kept_and_the_choice_never_moves() -> None:
    filt, model = opened()
    assert filt.hidden == 0 and filt.book.record_bytes == 4  # nothing was observed in vain
    statistics = model[1].running_mean.clone()
    values = hf.feature_scores(filt, model, batches(reversed(range(N))))
    assert model.training and torch.equal(statistics, model[1].running_mean)
    expected = explicit(model)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    state = filt.state_dict()
    digests = []
    for epoch in range(OPENING, 5):
        train_epoch(filt, model, epoch)
        assert set(filt.mask.kept_ids()) == largest(values, N // 2)
        digests.append(filt.mask.digest)
    again = hf.Filter(N, filt.policy, epochs=5, labels=Y.numpy())
    again.load_state_dict(state)
    assert again.begin_epoch(OPENING).digest == digests[0]


def test_a_step_of_one_s_own_gives_the_same() -> None:
    filt, model = opened()

    def step(batch: dict[str, torch.Tensor]) -> tuple[Any, ...]:
        return batch["ids"], model(X[batch["ids"]]), Y[batch["ids"]]

    values = hf.feature_scores(filt, model, [{"ids": torch.arange(N)}], step)
    np.testing.assert_allclose(values, explicit(model), rtol=1e-4)


def features_of(model: torch.nn.Sequential) -> np.ndarray:
    """What the last layer is given in eval mode, mean 0 and variance 1 of each (none if dead)."""
    with torch.no_grad():
        h = model.eval()[:3](X).double().numpy()
    model.train()
    h = h[:, h.std(0) > 1e-6]
    return (h - h.mean(0)) / h.std(0)


def test_the_error_of_the_features_chooses() -> None:
    filt, model = opened("reconstruction")
    values = hf.feature_scores(filt, model, batches())
    x = features_of(model)
    _, singular, directions = np.linalg.svd(x, full_matrices=False)
    size = 1 + int((np.cumsum(singular**2) / np.sum(singular**2) < 0.9).sum())
    expected = np.linalg.norm(x - x @ directions[:size].T @ directions[:size], axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
    assert set(filt.begin_epoch(OPENING).kept_ids()) == largest(values, N // 2)


def test_the_density_of_the_features_chooses() -> None:
    filt, model = opened("density")
    values = hf.feature_scores(filt, model, batches())
    x = features_of(model)
    table = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.testing.assert_allclose(values, np.sort(table, axis=1)[:, 8], rtol=1e-4, atol=1e-4)
    assert set(filt.begin_epoch(OPENING).kept_ids()) == largest(values, N // 2)


def test_a_noise_guard_and_a_class_floor_go_around_it() -> None:
    filt, model = opened(noise_guard=0.2, class_floor=0.5)
    hf.feature_scores(filt, model, batches())
    loss = filt.book.column("loss")
    mask = filt.begin_epoch(OPENING)
    hard = loss > np.quantile(loss, 0.8)
    assert mask.numpy()[hard].mean() < 0.9  # by chance, not by preference
    for c in range(3):
        mine = Y.numpy() == c
        assert mask.numpy()[mine].sum() >= np.ceil(mine.sum() / 2)


def test_what_cannot_be_is_one_sentence() -> None:
    filt, model = opened()
    with pytest.raises(InputError, match="chooses in epoch 2 by scores that never came: call hf.f"):
        filt.begin_epoch(OPENING)
    filt, model = opened()
    with pytest.raises(InputError, match="id 39 was given by no rank"):
        hf.feature_scores(filt, model, batches(range(N - 1)))
    with pytest.raises(InputError, match="id 5 was given by rank 0 twice"):
        hf.feature_scores(filt, model, batches([*range(N), 5]))
    with pytest.raises(InputError, match=r"ids: 40 lies outside \[0, 40\)"):
        hf.feature_scores(filt, model, [(torch.tensor([40]), X[:1], Y[:1])])
    with pytest.raises(InputError, match="step must return .ids, logits, labels."):
        hf.feature_scores(filt, model, batches(), lambda b: (b[0], torch.ones(len(b[0]))))
    bad = X[:4].clone()
    bad[2] = torch.nan
    with pytest.raises(InputError, match="sample id 2: logits: row 2 holds NaN"):
        hf.feature_scores(filt, model, [(torch.arange(4), bad, Y[:4])])
    with pytest.raises(InputError, match="needs a model that ends in a torch.nn.Linear"):
        hf.feature_scores(filt, torch.nn.Sequential(model, torch.nn.Tanh()), batches())
    hf.feature_scores(filt, model, batches())
    train_epoch(filt, model, OPENING)
    with pytest.raises(InputError, match="comes too late: .* has chosen in epoch 2"):
        hf.feature_scores(filt, model, batches())
    other = hf.Filter(N, "el2n", epochs=5)
    with pytest.raises(InputError, match="is for policy 'feature-filter' without a score file.*El"):
        hf.feature_scores(other, model, batches())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"score": "gradeint"}, "score='gradeint' is none; did you mean 'gradient'?"),
        ({"score": "loss"}, "score='loss' is none.*there are: gradient, reconstruction, density"),
        ({"opening": 0}, "'feature-filter': opening=0 must be at least 1 epoch"),
        ({"keep": 1.5}, "'feature-filter': keep=1.5 must be a fraction"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        make("feature-filter", **options)
