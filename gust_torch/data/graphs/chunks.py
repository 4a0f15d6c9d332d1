"""Rows of sharded Zarr arrays, through a bounded cache of decoded chunks.

zarr-python spends about a millisecond on each read, whatever its size. Local shards in the codecs of our
writer are therefore read directly: the shard's index (kept), one `pread` of a chunk, zstd. That is 12 times
as fast. (tensorstore is as fast, but aborts in processes that were forked, as the workers of a loader are.)
Any other store or codec goes through zarr, a whole chunk at a time. Either way no file stays open.
"""

import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from gust_torch.data.graphs.optional import require

# Index of a Zarr v3 shard: offset and length of each inner chunk as uint64, then a checksum.
_INDEX_ENTRY = 16
_CHECKSUM = 4
_CODECS = ["bytes", "zstd"]


class ChunkCache:
    """The most recently used chunks, in at most so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        """Args: max_bytes: Bound of the decoded chunks; 0 keeps none."""
        self._max_bytes = max_bytes
        self._chunks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: tuple[str, int]) -> np.ndarray | None:
        """Return a chunk, or None."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def put(self, key: tuple[str, int], chunk: np.ndarray) -> None:
        """Keep a chunk and drop the oldest ones beyond the bound."""
        self._chunks[key] = chunk
        self.num_bytes += chunk.nbytes
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= self._chunks.popitem(last=False)[1].nbytes


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
        self._name = array.path
        self._rows = array.chunks[0]
        self._whole = array.chunks[1:] == array.shape[1:]
        self._shards = ShardFiles(array, folder) if folder is not None and is_plain(array) else None

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
            parts.append(self._chunk(index)[max(0, start - first) : stop - first])
        return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def _chunk(self, index: int) -> np.ndarray:
        key = (self._name, index)
        chunk = self._cache.get(key)
        if chunk is None:
            if self._shards is not None:
                chunk = self._shards.read(index)
            else:
                chunk = np.asarray(self._array[index * self._rows : (index + 1) * self._rows])
            self._cache.put(key, chunk)
        return chunk


def is_plain(array: Any) -> bool:
    """Whether the array is stored in the codecs that `ShardFiles` knows."""
    codecs = array.metadata.to_dict().get("codecs", ())
    if len(codecs) != 1 or codecs[0]["name"] != "sharding_indexed" or array.dtype.byteorder == ">":
        return False
    settings = codecs[0]["configuration"]
    return (
        [codec["name"] for codec in settings["codecs"]] == _CODECS
        and settings["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        and [codec["name"] for codec in settings["index_codecs"]] == ["bytes", "crc32c"]
        and settings["index_location"] == "end"
        and array.shards[1:] == array.shape[1:]
        and array.metadata.to_dict()["chunk_key_encoding"]["name"] == "default"
    )


class ShardFiles:
    """Inner chunks of an array whose shards are local files."""

    def __init__(self, array: Any, folder: Path) -> None:
        """Args: array: A plain array (`is_plain`). folder: Its folder."""
        self._folder = folder / "c"
        self._tail = "/0" * (array.ndim - 1)
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
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError("it is no file")
                offset, length = self._index(descriptor, shard)[position].tolist()
                if length > self._max_length:
                    raise ValueError(f"no chunk {position} in its index")
                data = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
            return np.frombuffer(self._decode(data), self._dtype).reshape(self._shape)
        except (OSError, RuntimeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: damaged shard, {error}; convert the store again") from error

    def _index(self, descriptor: int, shard: int) -> np.ndarray:
        """(chunks, 2) uint64, offset and length of each inner chunk of a shard."""
        if shard not in self._indices:
            size = self._num_chunks * _INDEX_ENTRY
            end = os.fstat(descriptor).st_size - _CHECKSUM
            data = os.pread(descriptor, size + _CHECKSUM, max(0, end - size))
            if len(data) < size + _CHECKSUM:
                raise ValueError("it is too short for its index")
            if self._checksum(data[:size]) != int.from_bytes(data[size:], "little"):
                raise ValueError("the checksum of its index is another")
            self._indices[shard] = np.frombuffer(data[:size], "<u8").reshape(self._num_chunks, 2)
        return self._indices[shard]
