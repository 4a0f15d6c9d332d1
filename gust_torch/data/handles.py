"""Open files of a dataset: one handle per process and file, opened when first read from."""

import dataclasses
import errno
import os
from collections.abc import Sequence
from functools import lru_cache

import h5py
import numpy as np

from gust_torch.data.files import SourceFile, file_stamp, open_source, read_header
from gust_torch.data.readers import runs, with_chunk_cache
from solvers.common.hdf5.reader import open_error
from solvers.common.hdf5.structure import check_float32

# Below the usual limit of 1024 descriptors a process, with room for a few datasets.
MAX_OPEN_FILES = 128


class OpenFile:
    """One file: plainly stored fields share a descriptor, all others HDF5's handle."""

    def __init__(self, source: SourceFile) -> None:
        """Open the file; a ValueError says why it cannot be, or that it has become another one."""
        self._descriptor = -1
        self.file: h5py.File | None = None
        try:
            if source.places:
                self._descriptor = os.open(source.path, os.O_RDONLY)
                if file_stamp(self._descriptor) != source.stamp:
                    source = _read_again(source)
        except OSError as error:
            raise open_error(source.path, error) from error
        self._source = source
        self._datasets: dict[str, h5py.Dataset] = {}
        for channel in source.channels:
            if channel.field not in source.places and channel.field not in self._datasets:
                self.file = self.file or open_source(source.path)
                self._datasets[channel.field] = with_chunk_cache(self.file["fields"][channel.field])

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, c, h, w) float32.

        Raises:
            OSError: The file is truncated or damaged there.
            ValueError: Values beyond float32.
        """
        channels = self._source.channels
        for i, channel in enumerate(channels):
            if places := self._source.places.get(channel.field):
                places.read(self._descriptor, frames, rows, out[:, i])
        for field, dataset in self._datasets.items():
            for start, stop in runs(frames):
                where = f"{self._source.name}: /fields/{field}, frames {frames[start]} to {frames[stop - 1]}"
                block = check_float32(dataset[frames[start] : frames[stop - 1] + 1], where)
                for i, channel in enumerate(channels):
                    if channel.field == field:
                        part = block if channel.component is None else block[..., channel.component]
                        out[rows[start:stop], i] = part

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _read_again(source: SourceFile) -> SourceFile:
    """Return the header of a file that was written to since: frames may lie elsewhere."""
    fields = list(dict.fromkeys(channel.field for channel in source.channels))
    fresh = read_header(source.path, fields, allow_external=source.allow_external)
    if fresh.num_frames < source.num_frames or fresh.spec.grid != source.spec.grid:
        raise ValueError(f"{source.name} has changed since it was opened; open the dataset again")
    return dataclasses.replace(fresh, channels=source.channels)


class FileHandles:
    """The latest files that a dataset used, open, for the process that asks.

    HDF5 handles must cross neither a fork nor a pickle: a child that finds its parent's handles drops them
    and opens its own, and pickling (spawned workers) leaves them out.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
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

    def __reduce__(self) -> tuple[type["FileHandles"], tuple[Sequence[SourceFile]]]:
        """Leave the open files out."""
        return FileHandles, (self._sources,)
