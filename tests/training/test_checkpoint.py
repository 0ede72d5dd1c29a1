"""Checkpoint files: what comes back is what went in, and no bit of it changes unseen."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hvdfilter.agreement import SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.training import checkpoint
from hvdfilter.training.checkpoints import DAMAGED, Checkpoints, finished
from hvdfilter.world import World
from tests.agreement.worlds import run_world

ALONE = World(0, 1, 0, torch.device("cpu"), SoloCollective())
STATE = {"epoch": 3, "model": {"weight": torch.arange(6.0).view(2, 3)}}
ROWS = {"column/loss": torch.arange(5.0)}


def there_and_back(state: Any, folder: Path) -> Any:
    path = checkpoint.write(folder, "c", *checkpoint.encode(state))
    return checkpoint.decode(checkpoint.read(path), path)


def test_round_trip_of_an_optimizer_state(tmp_path: Path) -> None:
    # Adam: integer keys, 0-d tensors, tuples and floats, all of which JSON alone would change.
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    weight.sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "mask": torch.arange(5, dtype=torch.uint8),
        "none": None,
        "nested": [1.5, {"a": torch.tensor(True)}],
        "empty": torch.empty(0),
    }
    back = there_and_back(state, tmp_path)
    assert back["epoch"] == 3 and back["none"] is None and back["nested"][0] == 1.5
    assert torch.equal(back["mask"], state["mask"]) and back["empty"].shape == (0,)
    twin = torch.optim.Adam([torch.nn.Parameter(weight.detach().clone())], lr=0.5)
    twin.load_state_dict(back["optimizer"])
    assert twin.param_groups[0]["lr"] == 1e-3 and twin.param_groups[0]["betas"] == [0.9, 0.999]
    for name, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(twin.state_dict()["state"][0][name], value)


def test_shared_storage_is_saved_as_two_tensors(tmp_path: Path) -> None:
    # safetensors refuses tensors that share memory, as tied weights do.
    weight = torch.ones(4)
    back = there_and_back({"a": weight, "b": weight[:2]}, tmp_path)
    assert back["a"].tolist() == [1] * 4 and back["b"].tolist() == [1] * 2


def test_what_is_saved_is_what_was_when_it_was_copied(tmp_path: Path) -> None:
    weight = torch.ones(4)
    encoded = checkpoint.encode({"a": weight})
    weight.zero_()
    path = checkpoint.write(tmp_path, "c", *encoded)
    assert checkpoint.decode(checkpoint.read(path), path)["a"].tolist() == [1] * 4


def test_every_flipped_bit_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, "c", *checkpoint.encode(STATE))
    whole = path.read_bytes()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{path.name} is damaged"):
            checkpoint.read(path)
    for length in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is damaged"):
            checkpoint.read(path)


def test_a_foreign_file_with_the_right_digest_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    path = tmp_path / f"c.{checkpoint.digest(data)}.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a checkpoint of this hvdfilter"):
        checkpoint.decode(checkpoint.read(path), path)
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.decode(b"\xff" * 40, path)


def saved(run: Path, *epochs: int, world: World = ALONE) -> Checkpoints:
    kept = Checkpoints(run, world)
    for epoch in epochs:
        kept.save({**STATE, "epoch": epoch}, ROWS, 1, epoch, 0)
    kept.settle()
    return kept


def test_the_newest_is_found_and_two_are_kept(tmp_path: Path) -> None:
    kept = saved(tmp_path, 1, 2, 3)
    state, rows = finished(tmp_path, ALONE)
    assert state["epoch"] == 3 and torch.equal(rows["column/loss"], ROWS["column/loss"])
    tags = {name.split(".")[0].split("-")[0] for name in map(str, _names(kept))}
    assert tags == {"000002", "000003"} and len(_names(kept)) == 4


def test_a_damaged_one_is_passed_over_with_a_warning_and_put_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = saved(tmp_path, 1, 2)
    for name in _names(kept):
        if name.startswith("000002") and "rows" in name:
            flip(kept.folder / name)
    assert finished(tmp_path, ALONE).state["epoch"] == 1
    assert not [name for name in _names(kept) if name.endswith(DAMAGED)]  # who only reads
    again = Checkpoints(tmp_path, ALONE).newest()
    assert again is not None and again.state["epoch"] == 1
    said = capsys.readouterr().err
    assert said.startswith("hvdfilter: warning: checkpoint ") and "is damaged" in said
    assert len([name for name in _names(kept) if name.endswith(DAMAGED)]) == 2
    saved(tmp_path, 2)  # as a resumed run does
    assert finished(tmp_path, ALONE).state["epoch"] == 2
    assert capsys.readouterr().err == ""


def test_none_whole_is_an_error_and_none_at_all_a_new_run(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, ALONE).newest() is None
    with pytest.raises(InputError, match="the run has not finished an epoch"):
        finished(tmp_path, ALONE)
    kept = saved(tmp_path, 1)
    for name in _names(kept):
        flip(kept.folder / name)
    with pytest.raises(InputError, match=r"no checkpoint in .* is whole \(.*is damaged.*name"):
        kept.newest()


def test_one_that_was_cut_off_as_it_was_written_counts_for_nothing(tmp_path: Path) -> None:
    kept = saved(tmp_path, 1, 2)
    for name in _names(kept):
        if name.startswith("000002") and "state" in name:  # which is written last
            (kept.folder / name).rename(kept.folder / "000002-000000000-00000000.state.writing")
    assert finished(tmp_path, ALONE).state["epoch"] == 1
    saved(tmp_path, 2)
    assert not [name for name in _names(kept) if name.endswith(".writing")]


def test_no_room_is_said_and_the_old_one_stays(tmp_path: Path) -> None:
    kept = saved(tmp_path, 1)
    (tmp_path / "elsewhere").write_text("a file where a folder must be")
    other = Checkpoints(tmp_path / "elsewhere", ALONE)
    other.save(STATE, ROWS, 1, 1, 0)
    with pytest.raises(InputError, match="checkpoint .* cannot be written .*--resume true"):
        other.settle()
    assert finished(tmp_path, ALONE).state["epoch"] == 1 and kept.error is None


@pytest.mark.parametrize(("writers", "readers"), [(1, 3), (3, 3), (3, 2), (2, 4), (4, 1)])
def test_rows_in_parts_are_read_on_any_number_of_ranks(
    tmp_path: Path, writers: int, readers: int
) -> None:
    whole = torch.arange(11)

    def write(collective: Any) -> None:
        rank = collective.rank
        world = World(rank, collective.size, rank, torch.device("cpu"), collective)
        part = whole[11 * rank // writers : 11 * (rank + 1) // writers]
        kept = Checkpoints(tmp_path, world)
        kept.save(STATE if rank == 0 else {}, {"column/a": part}, writers, 1, 0)
        kept.settle()

    def read(collective: Any) -> list[int]:
        rank = collective.rank
        world = World(rank, collective.size, rank, torch.device("cpu"), collective)
        state, rows = finished(tmp_path, world)
        assert state["epoch"] == 3  # on every rank
        return rows["column/a"].tolist() if rows else []

    run_world(writers, write)
    assert sum(run_world(readers, read), []) == whole.tolist()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = random.Random(0).randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def _names(kept: Checkpoints) -> list[str]:
    return sorted(path.name for path in kept.folder.iterdir())
