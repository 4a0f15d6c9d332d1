"""Compression of field chunks: which filters there are, and the plugin that one of them needs."""

import importlib
from pathlib import Path
from typing import Any

import h5py

COMPRESSIONS = ("lz4", "gzip")

_NAMES = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SHUFFLE: "shuffle", 32008: "lz4"}


def compression_options(compression: str | None) -> dict[str, Any]:
    """Arguments of h5py's `create_dataset` for None, "lz4" (bitshuffle + lz4) or "gzip"."""
    if compression is None:
        return {}
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    import hdf5plugin  # deferred: most files are uncompressed and need no plugin

    return dict(hdf5plugin.Bitshuffle(cname="lz4"))


def filter_names(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Filter (compression, shuffle, checksum) that each chunk of a dataset passes through; () for plain
    chunks."""
    filters = dataset.id.get_create_plist()
    codes = [filters.get_filter(index)[0] for index in range(filters.get_nfilters())]
    return tuple(_NAMES.get(code, f"filter {code}") for code in codes)


def load_plugins(path: Path, dataset: h5py.Dataset) -> None:
    """Load the plugins that reading a dataset needs.

    Raises:
        ValueError: If a filter is unknown.
    """
    filters = dataset.id.get_create_plist()
    for index in range(filters.get_nfilters()):
        code = filters.get_filter(index)[0]
        if not h5py.h5z.filter_avail(code):
            importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{path}: {dataset.name} is compressed by HDF5 filter {code}, which is not installed; "
                "repack the file where it can be read"
            )
