"""Opens a Zarr store by path or fsspec URL and finds out which of the two layouts it has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gust_torch.data.graphs.chunks import ChunkCache, RowReader
from gust_torch.data.graphs.groups import GroupsReader
from gust_torch.data.graphs.optional import require
from gust_torch.data.graphs.ragged import LAYOUT, SOURCE, VERSION
from gust_torch.data.graphs.schema import KINDS, Column, Kind, Schema


class Reader(Protocol):
    """What both layouts offer."""

    num_samples: int
    schema: Schema | None  # where the store records it

    def read(self, index: int, skip: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
        """Arrays of one sample under their source names, without those in `skip`."""

    def source(self, index: int) -> str:
        """Name of a sample's source; its group's name where none is recorded."""


def open_reader(
    path: str | Path, kind: Kind, group: str, *, cache_bytes: int, storage_options: Mapping[str, Any] | None
) -> Reader:
    """Open one group of a store.

    Args:
        path: Folder or URL of the store.
        kind: What is expected.
        group: Name of the group.
        cache_bytes: Bound of the cache of decoded chunks.
        storage_options: For fsspec.

    Raises:
        ValueError: No such store or group, another kind, an unknown layout, an unfinished store.
    """
    node, folder = _open_group(str(path), group, storage_options)
    attributes = dict(node.attrs)
    where = f"{path}: group {group!r}"
    if "layout" not in attributes:
        return GroupsReader(node, kind, where)
    if (attributes["layout"], attributes.get("version")) != (LAYOUT, VERSION):
        found = f"{attributes['layout']} version {attributes.get('version')}"
        raise ValueError(
            f"{where} has layout {found}, expected {LAYOUT} version {VERSION}; update gust_torch"
        )
    if attributes.get("kind") != kind.name:
        other = attributes.get("kind")
        known = f"use the dataset for {other}" if other in KINDS else "convert again"
        raise ValueError(f"{where} holds {other!r}, expected {kind.name!r}; {known}")
    if "num_samples" not in attributes:
        raise ValueError(f"{where} is unfinished, its writer did not end; convert again")
    return RaggedReader(node, folder, kind, where, cache_bytes)


class RaggedReader:
    """Samples of a store in the ragged layout; its offsets are in memory, 8 bytes a sample and axis."""

    def __init__(self, node: Any, folder: Path | None, kind: Kind, where: str, cache_bytes: int) -> None:
        """Open every array and reads the offsets.

        Args:
            node: The zarr group.
            folder: Its folder on this machine; None where it is elsewhere.
            kind: What it holds.
            where: Names it in messages.
            cache_bytes: Bound of the decoded chunks.

        Raises:
            ValueError: Arrays, offsets and attributes do not fit together.
        """
        self._kind, self._where = kind, where
        self._axes: dict[str, str] = dict(node.attrs["axes"])
        self.num_samples = int(node.attrs["num_samples"])
        axes = sorted({*self._axes.values(), "node", SOURCE} - {"sample"})
        cache = ChunkCache(cache_bytes)
        try:
            self._offsets = {axis: np.asarray(node[f"offsets/{axis}"][:]) for axis in axes}
            self._rows = {
                name: RowReader(node[name], cache, folder / name if folder else None)
                for name in (*self._axes, SOURCE)
            }
        except KeyError as error:
            raise ValueError(f"{where}: {error} is missing, the store is damaged; convert again") from error
        self._offsets["sample"] = np.arange(self.num_samples + 1)
        for name, axis in {**self._axes, SOURCE: SOURCE}.items():
            rows = node[name].shape[0]
            if len(self._offsets[axis]) != self.num_samples + 1 or self._offsets[axis][-1] != rows:
                raise ValueError(
                    f"{where}: {name!r} has {rows} rows, which the offsets contradict; convert again"
                )
        self.schema: Schema | None = {
            name: Column(axis, node[name].dtype.name, node[name].shape[1:])
            for name, axis in self._axes.items()
        }

    def read(self, index: int, skip: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
        """Arrays of one sample in the shapes of the source."""
        arrays = {}
        for name, axis in self._axes.items():
            if name not in skip:
                rows = self._read(name, axis, index)
                if axis == "step":
                    # "nodes" is at least one: the converter refuses empty samples.
                    nodes = int(self._offsets["node"][index + 1] - self._offsets["node"][index])
                    rows = rows.reshape(-1, nodes, *rows.shape[1:])
                arrays[name] = rows.reshape(rows.shape[1:]) if axis == "sample" else rows
        return arrays

    def source(self, index: int) -> str:
        """Name of a sample's source."""
        return self._read(SOURCE, SOURCE, index).tobytes().decode()

    def _read(self, name: str, axis: str, index: int) -> np.ndarray:
        offsets = self._offsets[axis]
        return self._rows[name].read(int(offsets[index]), int(offsets[index + 1]))


def _open_group(path: str, group: str, options: Mapping[str, Any] | None) -> tuple[Any, Path | None]:
    """Return the zarr group, and its folder where it is on this machine."""
    zarr = require("zarr")
    local = path.removeprefix("file://")
    store: Any
    if "://" in local:
        require("fsspec")
        store = zarr.storage.FsspecStore.from_url(path, storage_options=dict(options or {}), read_only=True)
        folder = None
    else:
        if not Path(local).is_dir():
            raise ValueError(f"{local}: no such Zarr store; check the path, or convert the data first")
        store, folder = zarr.storage.LocalStore(local, read_only=True), Path(local) / group
    try:
        root: Any = zarr.open_group(store, mode="r")
        if group in root and isinstance(root[group], zarr.Group):
            return root[group], folder
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not a Zarr group; check the path, or convert the data again") from error
    found: Sequence[str] = sorted(root.group_keys())
    raise ValueError(f"{path}: no group {group!r}, the store has {', '.join(found) or 'none'}; give group=")
