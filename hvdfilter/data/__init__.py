"""Real data sets, indexed: one reader per format, one way to open them, batches on the device."""

from hvdfilter.data.images import ArrayImages, Augmentation, Description, Images
from hvdfilter.data.indexed import Indexed
from hvdfilter.data.loader import make_loader
from hvdfilter.data.registry import available, open_dataset
from hvdfilter.data.to_device import to_device
from hvdfilter.data.transform import Normalize, augment

__all__ = [
    "ArrayImages",
    "Augmentation",
    "Description",
    "Images",
    "Indexed",
    "Normalize",
    "augment",
    "available",
    "make_loader",
    "open_dataset",
    "to_device",
]
