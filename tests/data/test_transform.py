import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hvdfilter.data import Augmentation, Normalize, augment
from hvdfilter.data.counter import hash_numpy, key
from hvdfilter.data.transform import _PURPOSE

NATURAL = Augmentation(pad=4, flip=True)


def _images(count: int, shape: tuple[int, int, int] = (3, 12, 10)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def test_normalize_is_the_textbook_formula():
    x = _images(5)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    expected = (x.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    result = Normalize(mean, std)(x)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("augmentation", [NATURAL, Augmentation(2, False), Augmentation(0, True)])
def test_equals_a_loop_over_samples(augmentation):
    # Height and width differ, so that swapped axes cannot pass.
    x, ids, epoch, seed = _images(64), torch.arange(64) * 7 + 3, 5, 11
    result = augment(x, ids, epoch, seed, augmentation)
    pad = augmentation.pad
    for row, bits in enumerate(hash_numpy(ids.numpy(), key(seed, epoch, _PURPOSE)).tolist()):
        top = (bits % 2**16) * (2 * pad + 1) // 2**16
        left = (bits // 2**16 % 2**16) * (2 * pad + 1) // 2**16
        crop = F.pad(x[row], (pad, pad, pad, pad))[:, top : top + 12, left : left + 10]
        if augmentation.flip and bits // 2**32 % 2:
            crop = crop.flip(-1)
        assert torch.equal(result[row], crop)


def test_does_not_depend_on_how_samples_are_batched():
    x, ids = _images(50), torch.randperm(1000)[:50]
    whole = augment(x, ids, 3, 42, NATURAL)
    order = torch.randperm(50)
    for part in order.split(7):
        assert torch.equal(augment(x[part], ids[part], 3, 42, NATURAL), whole[part])


def test_epoch_seed_and_id_all_matter():
    x = _images(1).expand(64, -1, -1, -1)
    ids = torch.arange(64)
    base = augment(x, ids, 0, 0, NATURAL)
    assert not torch.equal(base, augment(x, ids, 1, 0, NATURAL))
    assert not torch.equal(base, augment(x, ids, 0, 1, NATURAL))
    assert not torch.equal(base, augment(x, ids + 64, 0, 0, NATURAL))


def test_every_crop_and_flip_is_equally_likely():
    # One bright pixel in the middle of an otherwise black image tells its offset.
    count = 9 * 9 * 2 * 200
    x = torch.zeros(count, 1, 9, 9, dtype=torch.uint8)
    x[:, 0, 4, 4] = 1
    moved = augment(x, torch.arange(count), 0, 0, Augmentation(4, False)).flatten(1).argmax(1)
    observed = np.bincount(moved.numpy(), minlength=81)
    expected = count / 81
    # Chi-square with 80 degrees of freedom: mean 80, deviation 12.6; the draw is fixed.
    assert ((observed - expected) ** 2 / expected).sum() < 80 + 4 * 12.6
    flipped = augment(_images(1).expand(10000, -1, -1, -1), torch.arange(10000), 0, 0,
                      Augmentation(0, True))  # fmt: skip
    share = (flipped != _images(1)).flatten(1).any(1).float().mean().item()
    assert abs(share - 0.5) < 0.02


def test_nothing_to_do_and_nothing_drawn():
    x = _images(3)
    state = torch.random.get_rng_state()
    assert augment(x, torch.arange(3), 0, 0, Augmentation(0, False)) is x
    augment(x, torch.arange(3), 0, 0, NATURAL)
    assert torch.equal(state, torch.random.get_rng_state())
    assert augment(x[:0], torch.arange(0), 0, 0, NATURAL).shape == (0, 3, 12, 10)
