"""Agreement between real processes: masks, budgets, history, sampler, errors on 1 to 7 ranks."""

import pytest

from tests.distributed.launch import check_ranks

pytestmark = pytest.mark.distributed

# Every rank draws the same cases from one seed, so all make the same calls; 7 ranks are more than
# there are bytes of mask for the smallest sets, so some own nothing.
PROGRAM = """
import hashlib
import numpy as np
from hvdfilter.agreement import Blocks, agree, mpi_collective, select
from hvdfilter.errors import InputError
from hvdfilter.filter.sampler import ShardSampler
from tests.agreement import oracle
from tests.agreement.cases import KINDS, keep_book, keys_of, observations, put, replay, scattered

collective = mpi_collective()
rank, size = collective.rank, collective.size
rng = np.random.default_rng(1)
digests = []
for num_samples in (1, 8, 333, 20_000):
    for kind in KINDS:
        keys = keys_of(rng, num_samples, kind)
        for spread in ("block", "striped", "random"):
            held = scattered(np.random.default_rng(num_samples), num_samples, size, spread)[rank]
            some = {num_samples * 2 // 3}
            for keep in sorted(some | {0, 1, num_samples} if spread == "random" else some):
                mask = agree(keys[held], held, num_samples, keep, collective)
                assert mask.count == keep
                assert np.array_equal(mask.numpy(), oracle.top(keys, keep))
        digests.append(mask.digest)

blocks = Blocks(5000, size)
mine = slice(blocks.start(rank), blocks.stop(rank))
keys, groups = keys_of(rng, 5000, "tied"), rng.integers(0, 10, 5000)
weights, keep = rng.integers(0, 9, 5000), rng.integers(0, 3000, 10)
chosen = select(keys[mine], keep, blocks, collective, groups=groups[mine], weights=weights[mine])
expected = oracle.top_of_groups(keys, groups, keep, weights)
assert np.array_equal(chosen, expected[mine])

for num_samples, options in ((3, {}), (500, {}), (500, {"round_rows": 20, "buffer_rows": 30})):
    seen = observations(np.random.default_rng(num_samples), num_samples, 3)
    book = keep_book(collective, num_samples, seen, **options)
    saved = book.gather()
    if collective.rank == 0:
        for name, column in replay(num_samples, seen).items():
            assert np.array_equal(saved[name], column), name
    fresh = type(book)(num_samples, [f.name for f in book.fields], collective)
    fresh.scatter(saved if collective.rank == 0 else None)
    for name in (*(f.name for f in book.fields), "age"):
        assert np.array_equal(fresh.column(name), book.column(name))
    means = collective.allgather(np.array([book.mean("loss"), *book.quantiles("loss", [0.3])]))
    assert len({m.tobytes() for m in means}) == 1

sampler = ShardSampler(mask, rank, size, seed=3)
drawn = collective.allgather(np.array(list(sampler)))
assert {shard.size for shard in drawn} == {-(-mask.count // size)}
assert np.array_equal(np.unique(np.concatenate(drawn)), mask.kept_ids())

spoilers = [put("keys", 3, np.nan), put("ids", 3, 100), put("ids", 0, 50)]
spoilers += [lambda a: a.update(keep=51), lambda a: a.update(num_samples=99)]
for spoil in spoilers:
    ids = np.arange(rank, 100, size)
    arguments = {"keys": np.ones(ids.size, np.float32), "ids": ids, "num_samples": 100, "keep": 50}
    if rank == size - 1:
        spoil(arguments)
    try:
        agree(collective=collective, **arguments)
        sentence = ""
    except InputError as error:
        sentence = str(error)
    sentences = collective.allgather(np.frombuffer(sentence.encode(), np.uint8))
    assert len({s.tobytes() for s in sentences}) == 1
    assert size == 1 or sentence.startswith("rank "), sentence
if rank == 0:
    history = "".join(digests).encode() + means[0].tobytes()
    print("digest", hashlib.sha256(history).hexdigest())
collective.close()
"""

_digests: set[str] = set()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_masks_on_real_ranks(ranks):
    output = check_ranks(PROGRAM, ranks, timeout=100)
    _digests.add(output.split("digest ")[1].split()[0])
    assert len(_digests) == 1  # the same bytes as on every number of ranks before
