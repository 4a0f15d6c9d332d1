"""Open files of a dataset, and frames read from them into memory that is already there.

Fields as our writer stores them (float32, no filter, whole frames in a chunk) are read from the file with
`preadv` at the addresses of their chunks: no lock, no selection arithmetic, no second copy, and HDF5 need not
open the file again. Measured against `h5py` indexing this takes 0.6 times as long for random 64 KB
frames out of 2.6 GB. All other layouts go through h5py.
"""

import atexit
import dataclasses
import errno
import math
import os
import weakref
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import h5py
import numpy as np
from h5py import h5d, h5p

from solvers.common.hdf5.reader import open_error, open_hdf5
from solvers.common.hdf5.storage import chunk_addresses
from solvers.common.hdf5.structure import check_float32

if TYPE_CHECKING:
    from gust_torch.data.files import SourceFile

# Below the usual limit of 1024 descriptors a process, with room for a few datasets.
MAX_OPEN_FILES = 128
MAX_CHUNK_CACHE_BYTES = 64 << 20
# Of one preadv call: POSIX allows 1024 buffers, Linux 2 GiB.
MAX_BUFFERS = 512
MAX_READ_BYTES = 1 << 30

# HDF5 closes what is open when the interpreter has gone already, and reads through python's file for that.
_remote: "weakref.WeakSet[h5py.File]" = weakref.WeakSet()


@atexit.register
def close_remote_files() -> None:
    """Close all files that are read through fsspec."""
    for file in list(_remote):
        file.close()


def is_url(path: str) -> bool:
    """Whether a path is a URL for fsspec (`s3://...`, `file://...`)."""
    return "://" in path


def open_source(path: str) -> h5py.File:
    """Open a local or remote file for reading; a ValueError says why it cannot be, and the remedy."""
    if not is_url(path):
        return open_hdf5(path)
    try:
        import fsspec  # remote data only

        file = h5py.File(fsspec.open(path, "rb").open(), "r")
    except Exception as error:  # each kind of server has its own
        raise open_error(path, error) from error
    _remote.add(file)
    return file


def file_stamp(file: int | str) -> tuple[int, int, int, int]:
    """Device, inode, size and time of a file, given by descriptor or path."""
    status = os.stat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the frames of an unfiltered float32 field lie in the file: position of each chunk, in bytes."""

    addresses: np.ndarray
    frames_per_chunk: int
    frame_bytes: int

    @classmethod
    def of(cls, file: h5py.File, dataset: h5py.Dataset) -> "Places | None":
        """Places of a field; None where frames do not lie in the file as they do in memory."""
        if not _lies_plainly(file, dataset):
            return None
        frames_per_chunk = dataset.shape[0] if dataset.chunks is None else dataset.chunks[0]
        frame_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
        return cls(chunk_addresses(dataset), frames_per_chunk, frame_bytes)

    def read(self, descriptor: int, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, h, w); neighbors in the file at once."""
        size, per_chunk, address = self.frame_bytes, self.frames_per_chunk, self.addresses.item
        longest = min(MAX_BUFFERS, max(1, MAX_READ_BYTES // size))
        # A plain loop: of many files, each has one or two frames of a batch.
        places = [address(frame // per_chunk) + frame % per_chunk * size for frame in frames]
        start = 0
        for stop in range(1, len(places) + 1):
            if stop < len(places) and places[stop] == places[stop - 1] + size and stop - start < longest:
                continue
            count = os.preadv(descriptor, [out[row] for row in rows[start:stop]], places[start])
            if count != (stop - start) * size:
                raise OSError(f"the file ends {(stop - start) * size - count} bytes early")
            start = stop


def _lies_plainly(file: h5py.File, dataset: h5py.Dataset) -> bool:
    """Whether frames lie in this file as they do in memory, at addresses that HDF5 tells."""
    if not (
        hasattr(os, "preadv")
        and hasattr(dataset.id, "chunk_iter")
        and file.driver == "sec2"
        and file.userblock_size == 0
        and dataset.ndim == 3
        and dataset.dtype == np.float32
    ):
        return False
    if h5py.h5o.get_info(dataset.id).fileno != h5py.h5o.get_info(file.id).fileno:
        return False  # behind a link to another file
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5d.CHUNKED:
        return dataset.chunks[1:] == dataset.shape[1:] and properties.get_nfilters() == 0
    return properties.get_layout() == h5d.CONTIGUOUS and properties.get_external_count() == 0


def _with_chunk_cache(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return the same dataset with a cache of the chunks that one frame touches, up to 64 MiB.

    Chunks of one whole frame are used once and bypass the cache, which saves a copy.
    """
    if dataset.chunks is None:
        return dataset
    per_frame = math.prod(-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    needed = per_frame * math.prod(dataset.chunks) * dataset.dtype.itemsize
    size = 0 if dataset.chunks[0] == 1 else min(needed, MAX_CHUNK_CACHE_BYTES)
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(10 * per_frame + 1, size, 1.0)
    return h5py.Dataset(h5d.open(dataset.file.id, dataset.name.encode(), access))


class OpenFile:
    """One file: plainly stored fields share a descriptor, all others HDF5's handle."""

    def __init__(self, source: "SourceFile") -> None:
        """Open the file; a ValueError says why it cannot be, or that it has become another one."""
        self._descriptor = -1
        self.file: h5py.File | None = None
        try:
            if source.places:
                self._descriptor = os.open(source.path, os.O_RDONLY)
                if file_stamp(self._descriptor) != source.stamp:
                    source = source.read_again()
        except OSError as error:
            raise open_error(source.path, error) from error
        self._name = source.name
        self._plain = [
            (i, places)
            for i, channel in enumerate(source.channels)
            if (places := source.places.get(channel.field))
        ]
        # Field -> its dataset, and (channel of an item, component) for each channel that it fills.
        self._others: dict[str, tuple[h5py.Dataset, list[tuple[int, int | None]]]] = {}
        for i, channel in enumerate(source.channels):
            if channel.field in source.places:
                continue
            if channel.field not in self._others:
                self.file = self.file or open_source(source.path)
                self._others[channel.field] = (_with_chunk_cache(self.file["fields"][channel.field]), [])
            self._others[channel.field][1].append((i, channel.component))

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, c, h, w) float32.

        Raises:
            OSError: The file is truncated or damaged there.
            ValueError: Values beyond float32.
        """
        for i, places in self._plain:
            places.read(self._descriptor, frames, rows, out[:, i])
        if not self._others:
            return
        cuts = [0, *(np.flatnonzero(np.diff(frames) != 1) + 1).tolist(), len(frames)]
        for field, (dataset, channels) in self._others.items():
            for start, stop in pairwise(cuts):
                first, last = frames[start], frames[stop - 1]
                where = f"{self._name}: /fields/{field}, frames {first} to {last}"
                block = check_float32(dataset[first : last + 1], where)
                for i, component in channels:
                    out[rows[start:stop], i] = block if component is None else block[..., component]

    def close(self) -> None:
        """Close the descriptor; HDF5 closes its handle with the last dataset."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class FileHandles:
    """The latest files that a dataset used, open, for the process that asks.

    HDF5 handles must cross neither a fork nor a pickle: a child that finds its parent's handles drops them
    and opens its own, and pickling (spawned workers) leaves them out.
    """

    def __init__(self, sources: Sequence["SourceFile"]) -> None:
        """Args: sources: The files; none is opened yet."""
        self._sources, self._pid = sources, os.getpid()
        self._open = lru_cache(MAX_OPEN_FILES)(lambda index: OpenFile(sources[index]))

    def file(self, index: int) -> OpenFile:
        """Return file `index`, open; a ValueError says why it cannot be opened (any more)."""
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        try:
            return self._open(index)
        except ValueError as error:
            full = getattr(error.__cause__, "errno", None) in (errno.EMFILE, errno.ENFILE)
            if not full or not self._open.cache_info().currsize:
                raise
        self.close()  # the process has no descriptor left: ours are given back
        return self._open(index)

    def close(self) -> None:
        """Close all files; they open again when needed."""
        self._open.cache_clear()

    def __reduce__(self) -> tuple[type["FileHandles"], tuple[Sequence["SourceFile"]]]:
        """Leave the open files out."""
        return FileHandles, (self._sources,)
