"""Saving and going on, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import hvdfilter as hf
from hvdfilter.clustering import GradientClusters
from hvdfilter.errors import InputError
from hvdfilter.world import World
from tests.agreement.worlds import ThreadCollective, all_errors
from tests.clustering.oracle import on_threads, own_losses, step


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 3, 3), nn.Flatten(), nn.Linear(12, 3)
    return nn.Sequential(*layers)


def images(samples: int) -> Tensor:
    return torch.randn(samples, 2, 8, generator=torch.Generator().manual_seed(5))


# Before the first centres, within an epoch of either factor, and between two epochs.
@pytest.mark.parametrize("saved_after", [2, 4, 7, 9])
@pytest.mark.parametrize("ranks", [1, 3])
def test_to_go_on_from_a_saved_state_gives_the_same_bits(ranks: int, saved_after: int) -> None:
    x = images(ranks * 15 * 8)
    models = [small() for _ in range(ranks)]

    def run(world: World, resumed: bool) -> list[Tensor]:
        model = models[world.rank]
        clusters, seen = GradientClusters(model, number=3, world=world), []
        for i, batch in enumerate(x.chunk(ranks)[world.rank].split(8)):
            if i == saved_after:
                saved = clusters.state_dict()
                if resumed:
                    clusters = GradientClusters(model, number=3, world=world)
                    clusters.load_state_dict(saved if world.rank == 0 else {})
            seen.append(step(clusters, batch))
            if i % 3 == 2:
                found = clusters.end_epoch()
                seen += [found.sizes, found.scatter]
        return seen

    one = on_threads(ranks, lambda world: run(world, False))
    other = on_threads(ranks, lambda world: run(world, True))
    for whole, resumed in zip(one, other, strict=True):
        assert len(whole) == 15 + 10
        assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_state_goes_on_on_another_number_of_ranks() -> None:
    x = images(96)
    models = [small() for _ in range(3)]

    def start(world: World) -> dict[str, Tensor]:
        clusters = GradientClusters(models[world.rank], number=3, world=world)
        for _ in range(2):
            for batch in x.chunk(2)[world.rank].split(16):
                step(clusters, batch)
            clusters.end_epoch()
        step(clusters, x.chunk(2)[world.rank][:16])
        return clusters.state_dict()

    def rest(world: World, saved: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        clusters = GradientClusters(models[world.rank], number=3, world=world)
        clusters.load_state_dict(saved)
        left = torch.cat([half[16:] for half in x.chunk(2)])
        for batch in left.tensor_split(world.size)[world.rank].split(16):
            step(clusters, batch)
        found = clusters.end_epoch()
        return found.sizes, found.scatter

    saved = on_threads(2, start)[0]
    sizes, scatter = on_threads(2, lambda world: rest(world, saved))[0]
    assert int(sizes.sum()) == 96
    for ranks in (1, 3):
        for theirs in on_threads(ranks, lambda world: rest(world, saved)):
            assert theirs[0].tolist() == sizes.tolist()
            torch.testing.assert_close(theirs[1], scatter)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"number": 0}, "number must be a whole number of at least 1, not 0"),
        ({"number": 2.5}, "number must be .* not 2.5"),
        ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ({"layers": ["head"]}, "layers names 'head', but the model has no such module.*'0', '2'"),
        ({"layers": "4"}, "layers must be a list of one or more names of modules, not '4'"),
        ({"layers": []}, "layers must be a list"),
        ({"layers": ["1"]}, "the layers to cluster have no trainable parameters"),
    ],
)
def test_bad_options_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        hf.GradientClusters(small(), **options)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.Embedding(5, 4), "'odd.weight' is the table of an Embedding.*layers="),
        (nn.PReLU(), "'odd' .PReLU. has trainable parameters .weight..*freeze it.*layers="),
        (nn.LSTM(4, 4), "'odd' .LSTM. has trainable parameters.*layers="),
    ],
)
def test_a_layer_without_a_rule_is_named_with_the_remedy(layer: nn.Module, sentence: str) -> None:
    model = nn.Sequential()
    model.add_module("odd", layer)
    model.add_module("head", nn.Linear(4, 2))
    with pytest.raises(InputError, match=sentence):
        GradientClusters(model)
    GradientClusters(model, layers=["head"])
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    GradientClusters(model)


def test_batch_norm_in_train_mode_is_refused_where_it_counts() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(InputError, match="'1' .BatchNorm1d.*couples"):
        step(GradientClusters(model, number=2), torch.randn(6, 4))
    assert step(GradientClusters(model, number=2, layers=["2"]), torch.randn(6, 4)).shape == (6,)


def test_steps_in_a_wrong_order_are_refused() -> None:
    clusters, x = GradientClusters(small(), number=3), images(4)
    with pytest.raises(InputError, match="call loss.backward"):
        clusters.assign()
    with pytest.raises(InputError, match="no sample was assigned"):
        clusters.end_epoch()
    with clusters:
        own_losses(clusters.model(x)).mean().backward()
        with pytest.raises(InputError, match="second gradient.*assign"):
            own_losses(clusters.model(x)).mean().backward()
    clusters.reset()
    with clusters:
        own_losses(clusters.model(x[:2])).mean().backward()
    with pytest.raises(InputError, match=r"weight must be \[2\]"):
        clusters.assign(torch.ones(4))
    with pytest.raises(InputError, match="weight.1. is 0"):
        clusters.assign(torch.tensor([1.0, 0.0]))
    clusters.assign()
    with pytest.raises(InputError, match="kept 2 gradients in its first epoch.*3 centres"):
        clusters.end_epoch()


def test_a_state_of_other_clusters_is_refused() -> None:
    clusters = GradientClusters(small(), number=3)
    state = clusters.state_dict()
    for other, what in (
        (GradientClusters(small(), number=4), "number"),
        (GradientClusters(small(), number=3, seed=1), "seed"),
        (GradientClusters(small(), number=3, layers=["4"]), "clustered layers"),
    ):
        with pytest.raises(InputError, match=f"the saved clusters have other {what} than these"):
            other.load_state_dict(state)
    with pytest.raises(InputError, match="no state of GradientClusters: it has no 'table'"):
        clusters.load_state_dict({k: v for k, v in state.items() if k != "table"})


def test_what_one_rank_does_otherwise_is_one_sentence_on_all() -> None:
    models = [small() for _ in range(3)]

    def make(number: int, layers: list[str] | None, collective: ThreadCollective) -> None:
        world = World(collective.rank, 3, 0, torch.device("cpu"), collective)
        last = collective.rank == 2
        GradientClusters(
            models[collective.rank], number if last else 3, 0, world, layers if last else None
        )

    for number, layers, sentence in (
        (4, None, "rank 2 has other number of GradientClusters than rank 0"),
        (3, ["4"], "rank 2 has other clustered layers of GradientClusters than rank 0"),
        (0, None, "rank 2: number must be a whole number"),
    ):
        told = all_errors(3, lambda c, n=number, w=layers: make(n, w, c))  # type: ignore[misc]
        assert len(set(told)) == 1 and sentence in told[0], told


def test_a_rank_without_samples_goes_along() -> None:
    x, models = images(24), [small() for _ in range(2)]

    def run(world: World) -> list[list[int]]:
        clusters = GradientClusters(models[world.rank], number=3, world=world)
        sizes = []
        for _ in range(3):
            if world.rank == 0:
                step(clusters, x)
            else:
                assert step(clusters, x[:0]).shape == (0,)
            sizes.append(clusters.end_epoch().sizes.tolist())
        return sizes

    results = on_threads(2, run)
    assert results[0] == results[1] and sum(results[0][2]) == 24
