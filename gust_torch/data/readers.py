"""Reads frames of one field into memory that is already there, at the cost of one contiguous read each.

Fields as our writer stores them (float32, no filter, whole frames in a chunk) are read from the file with
`preadv` at the addresses of their chunks: no lock, no selection arithmetic, no second copy. Measured against
`h5py` indexing this takes 0.6 times as long for random 64 KB frames out of 2.6 GB. All other layouts go
through h5py.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import h5py
import numpy as np
from h5py import h5d, h5p

from gust_torch.data.files import SourceFile, open_source

FLOAT32 = np.dtype("<f4")
MAX_CHUNK_CACHE_BYTES = 64 << 20
# Stays negative when the place within the chunk is added.
NOT_STORED = -(1 << 62)
# Of one preadv call: POSIX allows 1024 buffers, Linux 2 GiB.
MAX_BUFFERS = 512
MAX_READ_BYTES = 1 << 30
# Below the usual limit of 1024 descriptors a process, with room for a few datasets.
MAX_OPEN_FILES = 128


class FieldReader:
    """Frames of one field, written to some channels of a batch.

    Attributes:
        channels: (channel of the batch, component of the field or None), one entry for each channel to fill.
    """

    def __init__(self, file: h5py.File, field: str, channels: list[tuple[int, int | None]]) -> None:
        """Args: file: open for reading. field: its name. channels: see the class."""
        self.channels = channels
        self._dataset = _with_chunk_cache(file["fields"][field])
        self._direct: DirectReader | None = None
        if channels[0][1] is None and can_read_directly(file, self._dataset):
            self._direct = DirectReader(file, self._dataset)

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, c, h, w) float32.

        Raises:
            OSError: The file is truncated or damaged there.
        """
        if self._direct is not None and self._direct.read(frames, rows, out[:, self.channels[0][0]]):
            return
        for start, stop in runs(frames):
            block = self._dataset[frames[start] : frames[stop - 1] + 1]
            for channel, component in self.channels:
                out[rows[start:stop], channel] = block if component is None else block[..., component]


def runs(frames: list[int]) -> list[tuple[int, int]]:
    """Slices of a list in which each number is one more than the number before."""
    cuts = [i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1]
    return list(zip([0, *cuts], [*cuts, len(frames)], strict=True))


class DirectReader:
    """Frames of an unfiltered float32 field, read with `preadv` at the addresses that HDF5 names."""

    def __init__(self, file: h5py.File, dataset: h5py.Dataset) -> None:
        """Args: file, dataset: open for reading; `can_read_directly` holds for them."""
        # The descriptor is HDF5's own: it lives as long as the file, and preadv leaves its position alone.
        self._descriptor: int = file.id.get_vfd_handle()
        self._dataset = dataset
        self._frame_bytes = FLOAT32.itemsize * math.prod(dataset.shape[1:])
        self._frames_per_chunk = dataset.shape[0] if dataset.chunks is None else dataset.chunks[0]

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> bool:
        """Read frames into rows of `out` (n, h, w); False if HDF5 never stored some of them.

        Frames that follow each other in the file are one read.

        Raises:
            OSError: The file ends before the frames do.
        """
        places = self._places(frames)
        if min(places) < 0:
            return False
        size = self._frame_bytes
        longest = min(MAX_BUFFERS, max(1, MAX_READ_BYTES // size))
        start = 0
        for stop in range(1, len(places) + 1):
            if stop < len(places) and places[stop] == places[stop - 1] + size and stop - start < longest:
                continue
            count = os.preadv(self._descriptor, [out[row] for row in rows[start:stop]], places[start])
            if count != (stop - start) * size:
                raise OSError(f"the file ends {(stop - start) * size - count} bytes early")
            start = stop
        return True

    def _places(self, frames: list[int]) -> list[int]:
        """Positions of frames in the file, in bytes; negative where there is no storage (fill values)."""
        addresses, per_chunk, size = self._addresses, self._frames_per_chunk, self._frame_bytes
        if per_chunk == 1:
            return [addresses[frame] for frame in frames]
        return [addresses[frame // per_chunk] + frame % per_chunk * size for frame in frames]

    @cached_property
    def _addresses(self) -> list[int]:
        return chunk_addresses(self._dataset)


def can_read_directly(file: h5py.File, dataset: h5py.Dataset) -> bool:
    """Whether frames lie in the file as they do in memory, at addresses that HDF5 tells."""
    return (
        hasattr(os, "preadv")
        and hasattr(dataset.id, "chunk_iter")
        and file.driver == "sec2"
        and file.userblock_size == 0
        and dataset.dtype == FLOAT32
        and np.dtype(np.float32) == FLOAT32
        and dataset.ndim == 3
        and not dataset.is_virtual
        and (
            dataset.id.get_offset() is not None
            if dataset.chunks is None
            else dataset.chunks[1:] == dataset.shape[1:] and dataset.id.get_create_plist().get_nfilters() == 0
        )
    )


def chunk_addresses(dataset: h5py.Dataset) -> list[int]:
    """Position in the file of each chunk along axis 0, in bytes; far below 0 for chunks without storage.

    One pass over the chunk index (1.6 microseconds a chunk): looking up single addresses is linear in the
    number of chunks in HDF5.
    """
    if dataset.chunks is None:
        return [dataset.id.get_offset()]
    frames_per_chunk = dataset.chunks[0]
    addresses = [NOT_STORED] * -(-dataset.shape[0] // frames_per_chunk)

    def note(chunk: h5d.StoreInfo) -> None:
        index = chunk.chunk_offset[0] // frames_per_chunk
        if index < len(addresses):  # a file that is being written may have grown
            addresses[index] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return addresses


def _with_chunk_cache(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return the same dataset with a chunk cache that fits its chunks.

    Chunks of one whole frame are used once and bypass the cache, which saves a copy. Foreign files may have
    chunks that span many frames: then the cache holds those that one frame touches, up to 64 MiB.
    """
    if dataset.chunks is None:
        return dataset
    chunks_per_frame = math.prod(
        -(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
    )
    needed = chunks_per_frame * math.prod(dataset.chunks) * dataset.dtype.itemsize
    size = 0 if dataset.chunks[0] == 1 else min(needed, MAX_CHUNK_CACHE_BYTES)
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(10 * chunks_per_frame + 1, size, 1.0)
    return h5py.Dataset(h5d.open(dataset.file.id, dataset.name.encode(), access))


class FileHandles:
    """The readers of each file, for the process that asks.

    HDF5 handles must cross neither a fork nor a pickle: a child that finds its parent's handles drops them
    and opens its own, and pickling (spawned workers) leaves them out. The least recently used file is closed
    when more than `MAX_OPEN_FILES` are open.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        """Args: sources: The files; none is opened yet."""
        self._sources = sources
        self._open: OrderedDict[int, tuple[h5py.File, list[FieldReader]]] = OrderedDict()
        self._pid = os.getpid()

    def readers(self, index: int) -> list[FieldReader]:
        """One reader for each field of file `index`.

        Raises:
            ValueError: The file cannot be opened (any more).
        """
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if index not in self._open:
            source = self._sources[index]
            file = open_source(source.path)
            groups: dict[str, list[tuple[int, int | None]]] = {}
            for i, channel in enumerate(source.channels):
                groups.setdefault(channel.field, []).append((i, channel.component))
            self._open[index] = file, [FieldReader(file, field, group) for field, group in groups.items()]
            if len(self._open) > MAX_OPEN_FILES:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(index)
        return self._open[index][1]

    def close(self) -> None:
        """Close all files; they open again when needed."""
        for file, _ in self._open.values():
            file.close()
        self._open.clear()

    def __getstate__(self) -> dict[str, object]:
        """Without the open files."""
        return {"_sources": self._sources}

    def __setstate__(self, state: dict[str, Sequence[SourceFile]]) -> None:
        """Start with no open file."""
        self.__init__(state["_sources"])  # type: ignore[misc]
