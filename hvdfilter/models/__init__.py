"""Small reference networks, by name."""

from hvdfilter.models.registry import available, make

__all__ = ["available", "make"]
