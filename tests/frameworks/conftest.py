"""Torchvision, which several libraries import, must not fail beside a torch for CPUs."""

from tests.frameworks.beside import sitecustomize  # noqa: F401
