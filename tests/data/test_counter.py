import numpy as np
import torch

from hvdfilter.data.counter import hash_numpy, hash_torch, key, mix


def test_splitmix64_published_values():
    # The first outputs of SplitMix64 from state 1234567, as printed on Rosetta Code: output n is
    # the finaliser at state + n * gamma, and `mix` adds one gamma itself.
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix((1234567 + n * gamma) % 2**64) for n in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_python_numpy_and_torch_agree():
    # Negative and huge keys and ids reach every sign case of the signed arithmetic in torch.
    ids = np.concatenate([np.arange(100), np.array([2**31, 2**62, 2**63 - 1, -1, -(2**63)])])
    for k in (0, key(7, 3), 2**63, 2**64 - 1):
        plain = np.array([mix((int(i) % 2**64) ^ k) for i in ids], np.uint64)
        np.testing.assert_array_equal(hash_numpy(ids, k), plain)
        np.testing.assert_array_equal(
            hash_torch(torch.from_numpy(ids), k).numpy().view(np.uint64), plain
        )


def test_key_depends_on_order_and_length():
    assert len({key(1, 2), key(2, 1), key(1), key(2), key(1, 2, 0)}) == 5
