import subprocess
from multiprocessing import forkserver, resource_tracker

import numpy as np
import pytest
import torch

from hvdfilter.data import make_loader, open_dataset
from hvdfilter.data.encoded import EncodedImages
from hvdfilter.data.images import Augmentation, Description
from hvdfilter.data.loader import spare_cores
from hvdfilter.data.store import InMemory, Rows, Stored, store
from tests.data import encode


def test_batches_follow_the_sampler():
    images = open_dataset("digits", train=True, limit=100)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0)).tolist()
    loader = make_loader(images, order, batch_size=32)
    assert len(loader) == 4
    batches = list(loader)
    assert [len(ids) for ids, _, _ in batches] == [32, 32, 32, 4]  # the rest is not dropped
    ids, x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert ids.tolist() == order and ids.dtype == torch.int64
    assert x.dtype == torch.uint8 and torch.equal(x, images.batch(order)[0])
    assert y.dtype == torch.int64 and y.tolist() == images.labels[order].tolist()


def _encoded(tmp_path, count=12):
    generator = np.random.RandomState(0)
    pixels = generator.randint(0, 256, (count, 6, 5, 3)).astype(np.uint8)
    rows = Rows([("a", 5), ("b", count - 5)])
    pictures = [encode.picture(image) for image in pixels]
    description = Description((3, 6, 5), ("x", "y"), (0,) * 3, (1,) * 3, Augmentation())
    return pixels.transpose(0, 3, 1, 2), pictures, rows, np.arange(count) % 2, description


def test_workers_decode_and_give_the_same_batches(tmp_path, monkeypatch):
    # The only test that starts worker processes of this loader: they import torch anew, seconds.
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path))
    pixels, pictures, rows, labels, description = _encoded(tmp_path)
    images = EncodedImages(store(pictures, "x", rows), labels, description, False)
    state = torch.random.get_rng_state()
    loader = make_loader(images, [3, 8, 1, 11, 0], batch_size=2, num_workers=1)
    for _ in range(2):  # workers persist over epochs
        batches = list(loader)
        assert [ids.tolist() for ids, _, _ in batches] == [[3, 8], [1, 11], [0]]
        for ids, x, y in batches:
            np.testing.assert_array_equal(x.numpy(), pixels[ids.numpy()])
            np.testing.assert_array_equal(y.numpy(), labels[ids.numpy()])
        # A scheduler's warning goes to every process below a rank; none of these may die of it.
        (worker,) = loader._iterator._workers
        helpers = [forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid]
        for name in ("USR1", "TERM"):
            subprocess.run(["kill", f"-{name}", *map(str, [worker.pid, *helpers])], check=True)
    assert worker.is_alive()
    assert torch.equal(state, torch.random.get_rng_state())
    # What multiprocessing does when the rank ends before its loader; also in the moment in which a
    # warning waits for the worker, of which a second one would not be told.
    for name in ("STOP", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    worker.terminate()
    subprocess.run(["kill", "-CONT", str(worker.pid)], check=False)
    worker.join(timeout=20)
    assert not worker.is_alive()


def test_sets_in_memory_start_no_workers():
    assert make_loader(open_dataset("digits", train=True), [0, 1], 2, 4).num_workers == 0


def test_store_is_written_once_and_survives(tmp_path, monkeypatch):
    monkeypatch.setenv("HVDFILTER_DATA_CACHE", str(tmp_path / "cache"))
    _, pictures, rows, _, _ = _encoded(tmp_path)
    first = store(pictures, "identity", rows)

    def never():
        raise AssertionError("the cache was not used")
        yield

    again = store(never(), "identity", rows)
    assert [again.read(i) for i in range(12)] == pictures == [first.read(i) for i in range(12)]
    assert again.where(4) == "a: row 4" and again.where(5) == "b: row 0"
    assert InMemory(pictures, rows).where(11) == "b: row 6"
    # A copy interrupted half-way leaves nothing that could be taken for the whole.
    with pytest.raises(AssertionError):
        store(never(), "another", rows)
    assert len(list((tmp_path / "cache").glob("*.blob"))) == 1
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix not in (".blob", ".lock")]


def test_damaged_cache_is_named(tmp_path):
    from hvdfilter.errors import InputError

    path = tmp_path / "x.blob"
    path.write_bytes(b"0" * 64)
    with pytest.raises(InputError, match="x.blob: is no cache file"):
        Stored(path, Rows([("a", 1)]))


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 1), (8, 6), (64, 8)])
def test_beside_a_gpu_the_cores_but_two_load(
    cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spare_cores() == 0 or torch.cuda.is_available()  # a CPU's cores all compute
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert spare_cores() == expected
