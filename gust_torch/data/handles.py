"""Open files of a dataset: one handle per process and file, opened when first read from."""

import dataclasses
import errno
import os
from collections import OrderedDict
from collections.abc import Sequence
from io import FileIO

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
        """Open the file.

        Raises:
            ValueError: It cannot be opened, or has become another one.
        """
        self.raw: FileIO | None = None
        self.file: h5py.File | None = None
        try:
            if source.places:
                self.raw = FileIO(source.path)
                if file_stamp(self.raw.fileno()) != source.stamp:
                    source = _read_again(source)
        except OSError as error:
            raise open_error(source.path, error) from error
        self.source = source
        self._datasets = {}
        for field in {channel.field for channel in source.channels} - set(source.places):
            self.file = self.file or open_source(source.path)
            self._datasets[field] = with_chunk_cache(self.file["fields"][field])

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, c, h, w) float32.

        Raises:
            OSError: The file is truncated or damaged there.
            ValueError: Values beyond float32.
        """
        for i, channel in enumerate(self.source.channels):
            if self.raw and channel.field in self.source.places:
                self.source.places[channel.field].read(self.raw.fileno(), frames, rows, out[:, i])
        for field, dataset in self._datasets.items():
            for start, stop in runs(frames):
                where = f"{self.source.name}: /fields/{field}, frames {frames[start]} to {frames[stop - 1]}"
                block = check_float32(dataset[frames[start] : frames[stop - 1] + 1], where)
                for i, channel in enumerate(self.source.channels):
                    if channel.field == field:
                        part = block if channel.component is None else block[..., channel.component]
                        out[rows[start:stop], i] = part

    def close(self) -> None:
        """Close what is open."""
        self._datasets = {}
        for handle in (self.raw, self.file):
            if handle is not None:
                handle.close()


def _read_again(source: SourceFile) -> SourceFile:
    """Return the header of a file that was written to since: frames may lie elsewhere."""
    fields = list(dict.fromkeys(channel.field for channel in source.channels))
    fresh = read_header(source.path, fields, allow_external=source.allow_external)
    if fresh.num_frames < source.num_frames or fresh.spec.grid != source.spec.grid:
        raise ValueError(
            f"{source.name} has changed since it was opened: {fresh.num_frames} frames of {fresh.spec.grid} "
            f"now, {source.num_frames} of {source.spec.grid} then; open the dataset again"
        )
    return dataclasses.replace(fresh, channels=source.channels)


class FileHandles:
    """The open files of a dataset, for the process that asks.

    HDF5 handles must cross neither a fork nor a pickle: a child that finds its parent's handles drops them
    and opens its own, and pickling (spawned workers) leaves them out. The least recently used file is closed
    when more than `MAX_OPEN_FILES` are open, or as many as the system allows.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        """Args: sources: The files; none is opened yet."""
        self._sources = sources
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._pid = os.getpid()
        self._limit = MAX_OPEN_FILES

    def file(self, index: int) -> OpenFile:
        """Return file `index`, open.

        Raises:
            ValueError: The file cannot be opened (any more).
        """
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        while index not in self._open:
            self.close(keep=min(self._limit, MAX_OPEN_FILES) - 1)
            try:
                self._open[index] = OpenFile(self._sources[index])
            except ValueError as error:
                # Where the process has no descriptor left, some of ours are given back first.
                if (
                    getattr(error.__cause__, "errno", None) not in (errno.EMFILE, errno.ENFILE)
                    or not self._open
                ):
                    raise
                self._limit = max(1, len(self._open) // 2)
        self._open.move_to_end(index)
        return self._open[index]

    def close(self, keep: int = 0) -> None:
        """Close all files but the latest; they open again when needed."""
        while len(self._open) > keep:
            self._open.popitem(last=False)[1].close()

    def __reduce__(self) -> tuple[type["FileHandles"], tuple[Sequence[SourceFile]]]:
        """Leave the open files out."""
        return FileHandles, (self._sources,)
