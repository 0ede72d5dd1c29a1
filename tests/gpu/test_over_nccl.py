"""The torch back end where messages travel through a GPU: each operation over one rank of NCCL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hvdfilter.agreement import Call, TorchCollective

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and dist.is_available() and dist.is_nccl_available()),
        reason="no GPU, or a torch without NCCL",
    ),
]


def test_every_operation_keeps_what_one_rank_has(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        collective = TorchCollective(backend="nccl")
        for dtype in (np.int64, np.int32, np.int16, np.uint8, np.float64, np.float32):
            array = np.arange(23).astype(dtype)
            for op in ("sum", "max", "min"):
                reduced = collective.allreduce(array, op)
                assert reduced.dtype == dtype and np.array_equal(reduced, array)
        assert collective.allreduce(np.array([5, 6], np.uint8), "or").tolist() == [5, 6]
        assert np.array_equal(collective.alltoall([array])[0], array)
        assert np.array_equal(collective.allgather(array)[0], array)
        assert np.array_equal(collective.broadcast(array), array)
        assert collective.wait_for(collective.call(Call.STEP, flag=2)) == 2
        assert collective.local() == (0, 1)
        collective.close()
    finally:
        dist.destroy_process_group()
