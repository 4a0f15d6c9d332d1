"""Packages of the extra `graphs`, imported when first used."""

import importlib
from types import ModuleType


def require(name: str) -> ModuleType:
    """Import zarr, fsspec or torch_geometric.

    Raises:
        ValueError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"graphs need {name}, which cannot be imported ({error}): pip install 'gust_torch[graphs]'"
        ) from error
