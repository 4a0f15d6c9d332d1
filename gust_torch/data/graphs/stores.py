"""Opens a Zarr store by path or fsspec URL, in either of two layouts, and reads samples, which it checks.

zarr-python spends about a millisecond on each read, whatever its size. Local shards in the codecs of our
writer are therefore read directly: the shard's index (kept), one `pread` of a chunk, zstd. That is 12 times
as fast. (tensorstore is as fast, but aborts in processes that were forked, as the workers of a loader are.)
Any other store or codec goes through zarr, a whole chunk at a time. Either way no file stays open.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from gust_torch.data.graphs import require
from gust_torch.data.graphs.ragged import LAYOUT, SOURCE, VERSION
from gust_torch.data.graphs.schema import PARTICLES, Column, Kind, Schema, describe, faults

# What zarr and its codecs raise where files are not what they should be.
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OSError, MemoryError)
# Arrays that declare more are compared with what is stored before memory is taken.
LARGE = 1 << 26
# No codec makes coordinates and indices smaller by this factor.
BEST_RATIO = 1000
# Index of a Zarr v3 shard: offset and length of each inner chunk as uint64, then a checksum.
_INDEX_ENTRY = 16
_CHECKSUM = 4


class Reader:
    """Samples of one group of a store; every one is checked as the converter checks shards."""

    num_samples: int
    _names: Sequence[object]
    _schema: Schema | None = None

    def __init__(self, kind: Kind, where: str) -> None:
        self._kind, self._where = kind, where

    def read(self, index: int, skip: frozenset[str] = frozenset()) -> tuple[dict[str, np.ndarray], Schema]:
        """Arrays of one sample under their source names, in native byte order, without those in `skip`.

        And their axes: as recorded, or as follows from the shapes. A ValueError says which arrays are missing
        or hold what they cannot, and where.
        """
        try:
            arrays = {
                name: array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
                for name, array in self._arrays(index, skip).items()
            }
            if reasons := faults(self._kind, arrays, known=skip)[0]:
                raise ValueError("; ".join(reasons))
            return arrays, self._schema or describe(self._kind, arrays)
        except DAMAGE as error:
            where = f"{self._where}: sample {self._names[index]!r}"
            raise ValueError(f"{where}: {_said(error)}; repair the store, or convert again") from error

    def source(self, index: int) -> str:
        """Name of the file that a sample was made from; its group's name where none is recorded."""
        raise NotImplementedError

    def _arrays(self, index: int, skip: frozenset[str]) -> dict[str, np.ndarray]:
        raise NotImplementedError


def open_reader(
    path: str | Path,
    kind: Kind,
    group: str,
    *,
    cache_bytes: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> Reader:
    """Open one group of a store, a folder or URL; decoded chunks are kept in at most `cache_bytes`.

    Raises:
        ValueError: No such store or group, another kind, an unknown layout, an unfinished or damaged store.
    """
    node, folder = _open_group(str(path), kind, group, storage_options)
    attributes = dict(node.attrs)
    where = f"{path}: group {group!r}"
    if "layout" not in attributes:
        return GroupsReader(node, kind, where)
    for name, expected in {"layout": LAYOUT, "version": VERSION, "kind": kind.name}.items():
        if (found := attributes.get(name)) != expected:
            remedy = "use the dataset for that kind" if name == "kind" else "update gust_torch"
            raise ValueError(f"{where}: {name} is {found!r}, expected {expected!r}; {remedy}")
    if "num_samples" not in attributes:
        raise ValueError(f"{where} is unfinished, its writer did not end; convert again")
    try:
        return RaggedReader(node, folder, kind, where, cache_bytes)
    except DAMAGE as error:
        raise ValueError(f"{where} is damaged: {_said(error)}; convert again") from error


class RaggedReader(Reader):
    """Samples of a store in the ragged layout; its offsets are in memory, 8 bytes a sample and axis."""

    def __init__(self, node: Any, folder: Path | None, kind: Kind, where: str, cache_bytes: int) -> None:
        """Open every array of a zarr group, in a local `folder` or elsewhere, and read the offsets."""
        super().__init__(kind, where)
        axes: dict[str, str] = dict(node.attrs["axes"])
        stored = {name: node[name] for name in (*axes, SOURCE)}
        self._schema = {
            n: Column(axis, stored[n].dtype.name, stored[n].shape[1:]) for n, axis in axes.items()
        }
        self._columns = {**self._schema, SOURCE: Column(SOURCE, "uint8", ())}
        self.num_samples = node.attrs["num_samples"]
        tables = {column.axis for column in self._columns.values()} | {"node"}
        self._offsets = {
            axis: _read_offsets(node, axis, self.num_samples) for axis in sorted(tables - {"sample"})
        }
        self._offsets["sample"] = np.arange(self.num_samples + 1)
        self._names = range(self.num_samples)
        for name, column in self._columns.items():
            if stored[name].shape[0] != self._offsets[column.axis][-1]:
                raise ValueError(f"{name!r} has {stored[name].shape[0]} rows, which the offsets contradict")
        sizes = {axis: np.diff(offsets) for axis, offsets in self._offsets.items()}
        if sizes["node"].min() < 1 or ("step" in sizes and (sizes["step"] % sizes["node"]).any()):
            raise ValueError("offsets of nodes and steps contradict each other")
        self._chunk_rows = {name: array.chunks[0] for name, array in stored.items()}
        reads = {name: _chunk_reader(array, folder and folder / name) for name, array in stored.items()}
        largest = max(array.dtype.itemsize * int(np.prod(array.chunks)) for array in stored.values())
        self._chunk = lru_cache(cache_bytes // largest)(lambda name, index: reads[name](index))

    def source(self, index: int) -> str:
        return self._read(SOURCE, index).tobytes().decode(errors="replace")

    def _arrays(self, index: int, skip: frozenset[str]) -> dict[str, np.ndarray]:
        arrays = {name: self._read(name, index) for name in self._schema or () if name not in skip}
        nodes = int(self._offsets["node"][index + 1] - self._offsets["node"][index])
        for name, rows in arrays.items():
            if self._columns[name].axis == "step":
                arrays[name] = rows.reshape(-1, nodes, *rows.shape[1:])
            elif self._columns[name].axis == "sample":
                arrays[name] = rows.reshape(rows.shape[1:])
        return arrays

    def _read(self, name: str, index: int) -> np.ndarray:
        """Rows of one sample, as a new array."""
        column, size = self._columns[name], self._chunk_rows[name]
        start, stop = self._offsets[column.axis][index : index + 2].tolist()
        parts = [
            self._chunk(name, i)[max(0, start - i * size) : stop - i * size]
            for i in range(start // size, -(-stop // size) if stop > start else 0)
        ]
        if len(parts) == 1:
            return parts[0].copy()
        return np.concatenate(parts) if parts else np.empty((0, *column.trailing), column.dtype)


def _chunk_reader(array: Any, folder: Path | None) -> Callable[[int], np.ndarray]:
    """Return what reads a whole chunk of rows, by its number, of an array in a local folder or elsewhere."""
    if folder is not None and is_plain(array):
        return ShardFiles(array, folder).read
    rows = array.chunks[0]
    return lambda index: np.asarray(array[index * rows : (index + 1) * rows])


def _read_offsets(node: Any, axis: str, num_samples: int) -> np.ndarray:
    """(num_samples + 1,) int64, from 0 upward."""
    table = node[f"offsets/{axis}"]
    if type(num_samples) is not int or num_samples < 1 or table.shape != (num_samples + 1,):
        raise ValueError(f"num_samples is {num_samples}, offsets of {axis!r} have shape {table.shape}")
    table[-1:]  # memory is taken only where the last chunk is there, too
    offsets = np.asarray(table[:]).astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets of {axis!r} do not rise from 0")
    return offsets


def is_plain(array: Any) -> bool:
    """Whether the array is stored in the codecs that `ShardFiles` knows."""
    metadata = array.metadata.to_dict()
    codecs = metadata.get("codecs", ())
    if [codec["name"] for codec in codecs] != ["sharding_indexed"]:
        return False
    settings = codecs[0]["configuration"]
    return (
        [codec["name"] for codec in settings["codecs"]] == ["bytes", "zstd"]
        and settings["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        and [codec["name"] for codec in settings["index_codecs"]] == ["bytes", "crc32c"]
        and settings["index_location"] == "end"
        and array.shards[1:] == array.shape[1:]
        and metadata["chunk_key_encoding"]["name"] == "default"
    )


class ShardFiles:
    """Inner chunks of a plain array whose shards are local files."""

    def __init__(self, array: Any, folder: Path) -> None:
        self._folder, self._tail = folder / "c", "/0" * (array.ndim - 1)
        self._shape = (array.chunks[0], *array.shape[1:])
        self._dtype = array.dtype
        self._num_chunks = array.shards[0] // array.chunks[0]
        # zstd expands what it cannot compress by less than this; a missing chunk has length 2**64 - 1.
        self._max_length = 2 * int(np.prod(self._shape)) * self._dtype.itemsize + 1024
        self._decode = require("numcodecs.zstd").Zstd().decode
        self._checksum = require("google_crc32c").value
        self._indices: dict[int, np.ndarray] = {}  # 4 KiB a shard of 8 MiB

    def read(self, index: int) -> np.ndarray:
        """Inner chunk `index` of the array, whole; ValueError where its shard is missing or damaged."""
        shard, position = divmod(index, self._num_chunks)
        path = f"{self._folder}/{shard}{self._tail}"
        try:
            # Without waiting: a pipe of that name has no writer.
            with FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as file:
                if shard not in self._indices:
                    self._indices[shard] = self._read_index(file.fileno())
                offset, length = self._indices[shard][position].tolist()
                if length > self._max_length:
                    raise ValueError(f"no chunk {position} in its index")
                data = os.pread(file.fileno(), length, offset)
            return np.frombuffer(self._decode(data), self._dtype).reshape(self._shape)
        except (OSError, RuntimeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: damaged shard, {error}; convert the store again") from error

    def _read_index(self, descriptor: int) -> np.ndarray:
        """(chunks, 2) uint64, offset and length of each inner chunk of a shard."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        size = self._num_chunks * _INDEX_ENTRY
        data = os.pread(descriptor, size + _CHECKSUM, max(0, status.st_size - _CHECKSUM - size))
        checksum = int.from_bytes(data[size:], "little")
        if len(data) < size + _CHECKSUM or self._checksum(data[:size]) != checksum:
            raise ValueError("the checksum of its index is another")
        return np.frombuffer(data[:size], "<u8").reshape(self._num_chunks, 2)


class GroupsReader(Reader):
    """Samples of a store with one group each, in the order of their names; Zarr format 2 or 3."""

    def __init__(self, node: Any, kind: Kind, where: str) -> None:
        super().__init__(kind, where)
        self._node = node
        names: list[str] = sorted(node.group_keys(), key=lambda name: (len(name), name))
        self._names, self.num_samples = names, len(names)
        if not names:
            raise ValueError(f"{where} holds no samples; convert the data again, or give group=")

    def source(self, index: int) -> str:
        return str(self._node[self._names[index]].attrs.get(SOURCE, self._names[index]))

    def _arrays(self, index: int, skip: frozenset[str]) -> dict[str, np.ndarray]:
        sample = self._node[self._names[index]]
        # Opening an array costs as much as reading it: those of the sample itself are opened once, together.
        opened = dict(sample.arrays())
        arrays = {}
        for name, path in self._kind.folders.items():
            if name in skip:
                continue
            try:
                array = opened.pop(path) if path in opened else sample[path]
            except KeyError as error:
                raise ValueError(f"it has no array {path!r}; is it a store of {self._kind.name}?") from error
            if array.nbytes > LARGE and array.nbytes > BEST_RATIO * array.nbytes_stored():
                raise ValueError(f"array {path!r} of shape {array.shape} lacks chunks; copy the store again")
            arrays[name] = np.asarray(array[...])
        arrays.update({name: np.asarray(array[...]) for name, array in opened.items() if name not in skip})
        if self._kind is PARTICLES and "radius" in sample["neighbors"].attrs:
            arrays["radius"] = np.asarray(sample["neighbors"].attrs["radius"])
        return arrays


def _open_group(
    path: str, kind: Kind, group: str, options: Mapping[str, Any] | None
) -> tuple[Any, Path | None]:
    """Return the zarr group, and its folder where it is on this machine."""
    zarr = require("zarr")
    local = path.removeprefix("file://")
    is_remote = "://" in local
    if not is_remote and not Path(local).is_dir():
        raise ValueError(f"{local}: no such Zarr store; check the path, or convert the data first")
    store = _without_gaps(zarr.storage.FsspecStore if is_remote else zarr.storage.LocalStore, kind)
    if is_remote:
        store = store.from_url(path, storage_options=dict(options or {}), read_only=True)
    else:
        store = store(local, read_only=True)
    try:
        root: Any = zarr.open_group(store, mode="r")
        if group in root and isinstance(root[group], zarr.Group):
            return root[group], None if is_remote else Path(local) / group
        found = ", ".join(sorted(root.group_keys())) or "none"
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not a Zarr group; check the path, or convert the data again") from error
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged, {_said(error)}; copy the store again") from error
    raise ValueError(f"{path}: no group {group!r}, the store has {found}; give group=")


def _said(error: Exception) -> str:
    """Return what went wrong, in words."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__


def _without_gaps(base: Any, kind: Kind) -> Any:
    """Return a class of zarr stores that refuses what zarr would read as zeros, or would wait for.

    By Zarr's rule a chunk that is not there holds zeros. A copy that was interrupted leaves such chunks, and
    zeros are no coordinates: chunks of a sample's required arrays, and of offsets, must be there.
    """
    paths = "|".join(sorted({*kind.folders.values(), *kind.arrays, "offsets/[^/]+"}))
    chunk = re.compile(rf"(^|/)({paths})/(c|(c/)?\d+([./]\d+)*)$")

    class WithoutGaps(base):
        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            """Read one object."""
            if isinstance(root := getattr(self, "root", None), Path):
                with suppress(OSError):
                    mode = (root / key).stat().st_mode
                    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe is waited for without end
                        raise ValueError(f"{root / key} is no file; copy the store again")
            found = await super().get(key, prototype, byte_range)
            if found is None and (match := chunk.search(key)):
                remedy = "copy the store again (for zeros, write it with write_empty_chunks)"
                raise ValueError(f"array {match[2]!r} lacks its chunk {key}; {remedy}")
            return found

    return WithoutGaps
