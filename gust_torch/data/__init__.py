"""Datasets and data modules over files of the common HDF5 format; `from gust_torch import HDF5Dataset`."""

import importlib


def __getattr__(name: str) -> object:
    """Look a public name up in the package, since `torch_geometric.data` makes people expect it here."""
    package = importlib.import_module("gust_torch")
    if name in package.__all__:
        return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
