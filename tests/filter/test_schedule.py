"""Schedulers built for epochs in full end where they should although epochs hide samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.utils.data import DataLoader

import hvdfilter as hf
from tests.filter.cases import scored

EPOCHS, SAMPLES, BATCH = 8, 200, 16
FULL = -(-SAMPLES // BATCH)  # steps of an epoch in full: 13
TOTAL = EPOCHS * FULL

Make = Callable[[torch.optim.Optimizer], torch_schedulers.LRScheduler]
SCHEDULERS: dict[str, Make] = {
    "onecycle": lambda o: torch_schedulers.OneCycleLR(o, max_lr=0.4, total_steps=TOTAL),
    "cosine": lambda o: torch_schedulers.CosineAnnealingLR(o, T_max=TOTAL),  # recursive
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.01, 1.0, total_iters=TOTAL),
    "steps": lambda o: torch_schedulers.StepLR(o, step_size=2 * FULL + 5, gamma=0.1),
    "two": lambda o: torch_schedulers.SequentialLR(
        o,
        [
            torch_schedulers.LinearLR(o, 0.1, 1.0, total_iters=FULL),
            torch_schedulers.CosineAnnealingLR(o, T_max=TOTAL - FULL),
        ],
        milestones=[FULL],
    ),
}


def new_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4, momentum=0.9)


def rates_in_full(make: Make) -> list[float]:
    """The rate after every step of a run that hides nothing, by torch alone."""
    optimizer = new_optimizer()
    scheduler, rates = make(optimizer), []
    for _ in range(TOTAL):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def new_filter() -> hf.Filter:
    """Hides 30 % of its samples from the second epoch on, fewer and fewer later."""
    return hf.Filter(SAMPLES, hf.policies.make("kakurenbo", warmup=1, tau=0.1), epochs=EPOCHS)


def steps(
    filt: hf.Filter, loader: DataLoader, optimizer: torch.optim.Optimizer, start: int = 0
) -> Iterator[tuple[int, int]]:
    """Train; yields (epoch, step) after each optimiser step."""
    for epoch in range(start, EPOCHS):
        filt.begin_epoch(epoch, optimizer)
        for step, ids in enumerate(loader):
            scored(filt, ids, torch.linspace(0.1, 6, SAMPLES))
            optimizer.step()
            yield epoch, step


def new_loader(filt: hf.Filter, **options: object) -> DataLoader:
    return DataLoader(range(SAMPLES), BATCH, sampler=filt.sampler(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rates_at_every_epochs_end_are_those_of_a_run_in_full(
    name: str, drop_last: bool
) -> None:
    full = rates_in_full(SCHEDULERS[name])
    filt, optimizer = new_filter(), new_optimizer()
    loader = new_loader(filt, drop_last=drop_last)
    scheduler = filt.schedule(
        SCHEDULERS[name](optimizer),
        # A loader that drops its last batch has 12 steps in full; this scheduler was built for 13.
        (lambda: FULL if filt.epoch < 0 else len(loader)) if drop_last else loader,
    )
    ends: dict[int, float] = {}
    made = 0
    for epoch, _ in steps(filt, loader, optimizer):
        scheduler.step()
        made += 1
        ends[epoch] = optimizer.param_groups[0]["lr"]
        assert scheduler.get_last_lr() == [ends[epoch]]
    assert made < TOTAL - 10  # it was shortened
    assert [ends[e] for e in range(EPOCHS)] == full[FULL - 1 :: FULL]


def test_left_alone_a_scheduler_does_not_end() -> None:
    # What `schedule` is for; the same loop with torch's scheduler as it is.
    filt, optimizer = new_filter(), new_optimizer()
    scheduler = SCHEDULERS["onecycle"](optimizer)
    for _ in steps(filt, new_loader(filt), optimizer):
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] > 100 * rates_in_full(SCHEDULERS["onecycle"])[-1]


def test_gradient_accumulation_counts_the_schedulers_own_steps() -> None:
    full = rates_in_full(lambda o: torch_schedulers.LinearLR(o, 1.0, 0.0, total_iters=EPOCHS * 7))
    filt, optimizer = new_filter(), new_optimizer()
    loader = new_loader(filt)
    scheduler = filt.schedule(
        torch_schedulers.LinearLR(optimizer, 1.0, 0.0, total_iters=EPOCHS * 7),
        lambda: -(-len(loader) // 2),
    )
    for _, step in steps(filt, loader, optimizer):
        if step % 2 == 1 or step + 1 == len(loader):
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(full[EPOCHS * 7 - 1], abs=1e-9)
    assert scheduler.taken == EPOCHS * 7


def test_it_goes_on_where_it_was_saved_in_mid_epoch_and_makes_up_for_an_early_end() -> None:
    make = SCHEDULERS["cosine"]
    full = rates_in_full(make)
    filt, optimizer = new_filter(), new_optimizer()
    scheduler = filt.schedule(make(optimizer), loader := new_loader(filt))
    for epoch, step in steps(filt, loader, optimizer):
        scheduler.step()
        if (epoch, step) == (5, 3):
            break
    kept = filt.mask.count
    saved = (scheduler.state_dict(), filt.state_dict(consumed=4 * BATCH), optimizer.state_dict())
    filt, optimizer = new_filter(), new_optimizer()
    scheduler = filt.schedule(make(optimizer), loader := new_loader(filt))
    optimizer.load_state_dict(saved[2])
    scheduler.load_state_dict(saved[0])
    filt.load_state_dict(saved[1])
    ends, taken = {}, {5: 4}  # four steps of the epoch had been taken
    for epoch, step in steps(filt, loader, optimizer, start=5):
        scheduler.step()
        ends[epoch] = optimizer.param_groups[0]["lr"]
        taken[epoch] = taken.get(epoch, 0) + 1
        if epoch == 6 and step == 4:
            break  # the user has seen enough of this epoch
    # The rest of the epoch it was saved in, not the whole of it again, brings it to its end.
    assert taken[5] == -(-kept // BATCH) < FULL
    assert ends[5] == pytest.approx(full[6 * FULL - 1])
    assert scheduler.taken < 7 * FULL
    for _ in steps(filt, loader, optimizer, start=7):
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(full[-1], abs=1e-12)


def test_functions_of_progress_end_where_they_should() -> None:
    filt, optimizer = new_filter(), new_optimizer()
    assert filt.progress == 0
    scheduler = torch_schedulers.LambdaLR(optimizer, lambda _: 1 - filt.progress)
    ends = {}
    for epoch, _ in steps(filt, new_loader(filt), optimizer):
        assert epoch / EPOCHS < filt.progress <= (epoch + 1) / EPOCHS
        scheduler.step()
        ends[epoch] = optimizer.param_groups[0]["lr"]
    assert [ends[e] for e in range(EPOCHS)] == pytest.approx(
        [0.4 * (1 - (e + 1) / EPOCHS) for e in range(EPOCHS)]
    )
    filt.end_epoch()
    assert filt.progress == 1


def test_horovods_own_warm_up() -> None:
    # adjust_learning_rate of Horovod's pytorch_imagenet_resnet50.py: 8 ranks, 5 epochs of warm-up.
    def adjust(epoch: float, batch: int, batches: int) -> float:
        if epoch < 5:
            epoch += float(batch + 1) / batches
            return 1.0 / 8 * (epoch * (8 - 1) / 5 + 1)
        return 1.0 if epoch < 6 else 1e-1

    filt, optimizer = new_filter(), new_optimizer()
    loader = new_loader(filt)
    ends, shortened = {}, 0
    for epoch, step in steps(filt, loader, optimizer):
        ends[epoch] = adjust(epoch, step, len(loader))
        shortened += len(loader) < FULL
    assert shortened > 20
    assert [ends[e] for e in range(EPOCHS)] == [
        adjust(epoch, FULL - 1, FULL) for epoch in range(EPOCHS)
    ]


def test_too_late_or_without_steps() -> None:
    filt, optimizer = new_filter(), new_optimizer()
    scheduler = SCHEDULERS["cosine"](optimizer)
    with pytest.raises(hf.InputError, match="the loader, or a function"):
        filt.schedule(scheduler, 13)  # type: ignore[arg-type]
    with pytest.raises(hf.InputError, match="an epoch without steps"):
        filt.schedule(scheduler, [])
    filt.begin_epoch(0)
    with pytest.raises(hf.InputError, match="before the first begin_epoch"):
        filt.schedule(scheduler, new_loader(filt))
