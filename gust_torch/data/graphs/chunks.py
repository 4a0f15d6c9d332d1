"""Rows of sharded Zarr arrays, through a bounded cache of decoded chunks.

zarr-python spends about a millisecond on each read, whatever its size. Local shards in the codecs of our
writer are therefore read directly: the shard's index (kept), one `pread` of a chunk, zstd. That is 12 times
as fast. (tensorstore is as fast, but aborts in processes that were forked, as the workers of a loader are.)
Any other store or codec goes through zarr, a whole chunk at a time. Either way no file stays open.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from gust_torch.data.graphs import require

# Index of a Zarr v3 shard: offset and length of each inner chunk as uint64, then a checksum.
_INDEX_ENTRY = 16
_CHECKSUM = 4


class ChunkCache:
    """The most recently used chunks, in at most so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        """Args: max_bytes: Bound of the decoded chunks; 0 keeps none."""
        self._max_bytes = max_bytes
        self._chunks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self.num_bytes = 0

    def get(self, name: str, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return a chunk of an array, read where it is not kept."""
        chunk = self._chunks.pop((name, index), None)
        if chunk is None:
            chunk = read(index)
            self.num_bytes += chunk.nbytes
        self._chunks[name, index] = chunk
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= self._chunks.popitem(last=False)[1].nbytes
        return chunk


class RowReader:
    """Reads rows [start, stop) of one array."""

    def __init__(self, array: Any, cache: ChunkCache, folder: Path | None) -> None:
        """Prepare reading.

        Args:
            array: The zarr array, opened for reading.
            cache: Shared by the arrays of a store.
            folder: The array's folder on this machine; None where it is elsewhere.
        """
        self._array, self._cache = array, cache
        self._rows = array.chunks[0]
        self._whole = array.chunks[1:] == array.shape[1:]
        self._read_chunk = self._through_zarr
        if folder is not None and is_plain(array):
            self._read_chunk = ShardFiles(array, folder).read

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows as a new array.

        Raises:
            ValueError: The store is damaged.
        """
        if start == stop or not self._whole:
            return self._array[start:stop]
        parts = []
        for index in range(start // self._rows, (stop - 1) // self._rows + 1):
            first = index * self._rows
            chunk = self._cache.get(self._array.path, index, self._read_chunk)
            parts.append(chunk[max(0, start - first) : stop - first])
        return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def _through_zarr(self, index: int) -> np.ndarray:
        return np.asarray(self._array[index * self._rows : (index + 1) * self._rows])


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
    """Inner chunks of an array whose shards are local files."""

    def __init__(self, array: Any, folder: Path) -> None:
        """Args: array: A plain array (`is_plain`). folder: Its folder."""
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
        """Inner chunk `index` of the array, whole.

        Raises:
            ValueError: The shard is missing or damaged.
        """
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
        if len(data) < size + _CHECKSUM:
            raise ValueError("it is too short for its index")
        if self._checksum(data[:size]) != int.from_bytes(data[size:], "little"):
            raise ValueError("the checksum of its index is another")
        return np.frombuffer(data[:size], "<u8").reshape(self._num_chunks, 2)
