"""Opens a run's data, and refuses ranks that were given different data under one name.

A folder that was copied to each host, or is mounted on some of them only, would train all the same:
ids then mean other samples on other ranks. Looks at labels and at a few samples, never at all.
"""

from __future__ import annotations

import hashlib

import numpy as np

from hvdfilter.alike import refuse_unlike
from hvdfilter.data import Images, open_dataset
from hvdfilter.training.config import TrainConfig
from hvdfilter.training.decoded_cache import decoded
from hvdfilter.training.watchdog import Watchdog
from hvdfilter.world import World

LABELS, SAMPLES = 65536, 4
"""How many labels, and how many samples' pixels, stand for a set; all labels of a smaller one."""


def open_data(config: TrainConfig, world: World, watchdog: Watchdog) -> tuple[Images, Images]:
    """Collective. Training and test set of a run, from the decoded cache where that is asked for.

    watchdog: told of progress while the cache is made. Raises `InputError` on every rank, naming a
    host where the hosts' data differ.
    """
    folder, limit = config.decoded_cache, config.limit
    with world.collective.errors_shared():
        here = folder is None
        train_set = open_dataset(config.data, train=True, limit=limit, decode=here)
        test_set = open_dataset(config.data, train=False, limit=limit, like=train_set, decode=here)
    if folder is not None:
        folder = folder.expanduser()
        train_set = decoded(train_set, folder, world, watchdog.beat)
        test_set = decoded(test_set, folder, world, watchdog.beat)
    refuse_other_data(config.data, {"training": train_set, "test": test_set}, world)
    return train_set, test_set


def refuse_other_data(name: str, sets: dict[str, Images], world: World) -> None:
    """Collective. `InputError` on every rank where one has other samples, labels or pixels.

    name: of the data; sets: by the name of their split.
    """
    facts: dict[str, str] = {}
    if world.size > 1:
        with world.collective.errors_shared():
            for split, images in sets.items():
                facts |= {f"{name}: {split} {what}": is_ for what, is_ in _facts(images).items()}
    refuse_unlike(world.collective, facts, "give all hosts the same files")


def _facts(images: Images) -> dict[str, str]:
    some = _spread(len(images), SAMPLES)
    pixels = images.pixels(some).numpy().tobytes() if len(some) else b""
    return {
        "samples, their number": str(len(images)),
        "classes, their number": str(images.num_classes),
        "images, their shape": str(images.shape),
        "labels, a digest": _digest(images.labels[_spread(len(images), LABELS)].tobytes()),
        "pixels, a digest": _digest(pixels),
    }


def _spread(count: int, wanted: int) -> np.ndarray:
    """Ids [<= wanted], evenly over [0, count)."""
    return np.unique(np.linspace(0, count - 1, wanted).astype(np.int64)) if count else np.arange(0)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
