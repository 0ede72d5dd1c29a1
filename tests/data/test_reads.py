"""Every sample that is read is counted, wherever it is read: here, in threads, in workers."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

from hvdfilter.data import open_dataset
from hvdfilter.data.reads import Reads


def _add(reads: Reads, count: int) -> None:
    for _ in range(count):
        reads.add(1, 2)


def test_threads_and_processes_lose_nothing() -> None:
    # 70 copies, more than share one piece of memory; two of them work at once, in processes.
    reads = Reads()
    for _ in range(68):
        copy.copy(reads)
    context = get_context("forkserver")
    workers = [context.Process(target=_add, args=(reads, 5000)) for _ in range(2)]
    for worker in workers:
        worker.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_add, [reads] * 4, [1000] * 4))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert reads.total().tolist() == [14_000, 28_000]


def test_a_copy_that_is_no_worker_counts_for_itself() -> None:
    reads = Reads()
    other = pickle.loads(pickle.dumps(reads))
    other.add(3)
    assert reads.total().tolist() == [0, 0] and other.total().tolist() == [3, 0]


def test_all_access_is_counted() -> None:
    images = open_dataset("digits", train=True, limit=20)
    images.batch([3, 4, 4])
    images[5]
    images.__getitems__([7, 8])
    assert images.reads.total().tolist() == [6, 0]
