import numpy as np
import pytest
import torch

from hvdfilter.agreement.buffer import ObservationBuffer


def filled(device, device_rows):
    buffer = ObservationBuffer(("loss", "correct"), device_rows)
    for at in range(0, 100, 10):
        loss = torch.arange(at, at + 10, device=device) * 0.5
        buffer.add(torch.arange(at, at + 10), {"loss": loss, "correct": loss % 1 == 0})
    return buffer


# everything moved at once, and in pieces on the way
@pytest.mark.parametrize("device_rows", [1000, 25])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_rows_come_back_in_order(device, device_rows):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    buffer = filled(device, device_rows)
    assert buffer.rows == 100
    ids, values = buffer.take()
    assert np.array_equal(ids, np.arange(100))
    assert np.array_equal(values["loss"], np.arange(100, dtype=np.float32) * 0.5)
    assert np.array_equal(values["correct"], np.arange(100) % 2 == 0)
    assert buffer.rows == 0 and buffer.take()[0].size == 0


@pytest.mark.gpu
def test_adding_does_not_wait_for_the_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.set_sync_debug_mode("error")  # any synchronisation raises
    try:
        buffer = filled("cuda", 25)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert buffer.take()[0].size == 100


def test_doubles_and_bfloat16_become_float32():
    buffer = ObservationBuffer(("loss",), 10)
    buffer.add(torch.tensor([1]), {"loss": torch.tensor([0.1], dtype=torch.float64)})
    buffer.add(torch.tensor([2], dtype=torch.int32), {"loss": np.array([0.5])})
    buffer.add(torch.tensor([3]), {"loss": torch.tensor([1.5], dtype=torch.bfloat16)})
    ids, values = buffer.take()
    assert ids.dtype == np.int64 and values["loss"].dtype == np.float32
    assert values["loss"].tolist() == [np.float32(0.1), 0.5, 1.5]
