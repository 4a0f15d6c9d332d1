"""Datasets and data modules over files of the common HDF5 format; `from gust_torch import HDF5Dataset`."""


def __getattr__(name: str) -> object:
    import gust_torch  # its public names: `from torch_geometric.data import ...` makes people expect them

    if name in gust_torch.__all__:
        return getattr(gust_torch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
