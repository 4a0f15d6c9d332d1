"""Open files of a dataset: one handle per process and file, opened when first read from."""

import errno
import os
from collections import OrderedDict
from collections.abc import Sequence

import h5py
import numpy as np

from gust_torch.data.files import SourceFile, file_stamp, open_source, read_header
from gust_torch.data.readers import ChannelMap, DirectReader, FieldReader
from solvers.common.hdf5.reader import open_error

# Below the usual limit of 1024 descriptors a process, with room for a few datasets.
MAX_OPEN_FILES = 128


class OpenFile:
    """The readers of one file: those of plainly stored fields share a descriptor, all others HDF5's
    handle.
    """

    def __init__(self, source: SourceFile) -> None:
        """Open the file.

        Raises:
            ValueError: It cannot be opened, or has become another one.
        """
        self._descriptor = -1
        self._file: h5py.File | None = None
        self.readers: list[DirectReader | FieldReader] = []
        try:
            if source.places:
                self._descriptor = os.open(source.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                if file_stamp(self._descriptor) != source.stamp:
                    source = self._again(source)
            for field, channels in source.channel_maps().items():
                self.readers.append(self._reader(source, field, channels))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise open_error(source.path, error) from error
            raise

    def _reader(self, source: SourceFile, field: str, channels: ChannelMap) -> DirectReader | FieldReader:
        if field in source.places:
            return DirectReader(self._descriptor, source.places[field], channels[0][0])
        if self._file is None:
            self._file = open_source(source.path)
        return FieldReader(self._file, field, channels, source.name)

    def _again(self, source: SourceFile) -> SourceFile:
        """Return the header of a file that was written to since: frames may lie elsewhere."""
        fields = list(dict.fromkeys(channel.field for channel in source.channels))
        fresh = read_header(source.path, fields, allow_external=source.allow_external)
        if fresh.num_frames < source.num_frames or fresh.spec.grid != source.spec.grid:
            raise ValueError(
                f"{source.name} has changed since it was opened: {fresh.num_frames} frames of "
                f"{fresh.spec.grid} "
                f"now, {source.num_frames} of {source.spec.grid} then; open the dataset again"
            )
        return SourceFile(**{**vars(fresh), "channels": source.channels})

    def read(self, frames: list[int], rows: list[int], out: np.ndarray) -> None:
        """Read frames, in increasing order, into rows of `out` (n, c, h, w) float32."""
        for reader in self.readers:
            reader.read(frames, rows, out)

    def close(self) -> None:
        """Close what is open."""
        self.readers = []
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


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
        if index not in self._open:
            self._close_oldest(min(self._limit, MAX_OPEN_FILES) - 1)
            self._open[index] = self._opened(self._sources[index])
        self._open.move_to_end(index)
        return self._open[index]

    def _opened(self, source: SourceFile) -> OpenFile:
        """Open a file; where the process has no descriptor left, give back some of ours first."""
        while True:
            try:
                return OpenFile(source)
            except ValueError as error:
                number = getattr(error.__cause__, "errno", None)
                if number not in (errno.EMFILE, errno.ENFILE) or not self._open:
                    raise
                self._limit = max(1, len(self._open) // 2)
                self._close_oldest(self._limit - 1)

    def _close_oldest(self, keep: int) -> None:
        while len(self._open) > keep:
            self._open.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close all files; they open again when needed."""
        self._close_oldest(0)

    def __getstate__(self) -> dict[str, object]:
        """Without the open files."""
        return {"_sources": self._sources}

    def __setstate__(self, state: dict[str, Sequence[SourceFile]]) -> None:
        """Start with no open file."""
        self.__init__(state["_sources"])  # type: ignore[misc]
