"""Checkpoints: what comes back is what went in, and a damaged file is named, never half loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hvdfilter.agreement import SoloCollective
from hvdfilter.errors import InputError
from hvdfilter.training import checkpoint
from hvdfilter.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), SoloCollective())


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
    checkpoint.write(tmp_path / "c.safetensors", state, ALONE)
    back = checkpoint.read(tmp_path / "c.safetensors", ALONE)
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
    checkpoint.write(tmp_path / "c.safetensors", {"a": weight, "b": weight[:2]}, ALONE)
    back = checkpoint.read(tmp_path / "c.safetensors", ALONE)
    assert back["a"].tolist() == [1] * 4 and back["b"].tolist() == [1] * 2


@pytest.mark.parametrize("kept", [0, 5, 60, -3])
def test_truncated_file_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, {"a": torch.ones(4)}, ALONE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="c.safetensors is truncated or damaged"):
        checkpoint.read(path, ALONE)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="no checkpoint .*none.safetensors"):
        checkpoint.read(tmp_path / "none.safetensors", ALONE)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a checkpoint of hvdfilter"):
        checkpoint.read(tmp_path / "other.safetensors", ALONE)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "c.safetensors"
    with pytest.raises(InputError, match="cannot be written"):
        checkpoint.write(path, {"a": torch.ones(1)}, ALONE)
