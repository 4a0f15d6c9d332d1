"""Meshes and particle sets of varying size in Zarr stores, as torch_geometric items and batches."""

import importlib
from types import ModuleType


def require(name: str) -> ModuleType:
    """Import a package of the extra `graphs`, when it is first used.

    Raises:
        ValueError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"graphs need {name} ({error}): pip install 'gust_torch[graphs]'") from error
