"""A common-format file opened for appending in HDF5's SWMR (single writer, multiple readers) mode.

Growing datasets are written through h5py's low-level calls, a quarter of the time of the high-level ones.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.live import LiveSuperblock, trim
from solvers.common.hdf5.schema import filter_names

REFUSED_LOCK = "unable to lock file"
"""What HDF5 says, whatever the reason."""

_METADATA_SLACK_BYTES = 256 << 10


class Column:
    """A dataset that grows along axis 0 by one row for each sample.

    Attributes:
        row: Shape of one row, () for scalars, (H, W) or (H, W, C) for frames.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        """Wrap an open dataset whose axis 0 is unlimited."""
        self.row: tuple[int, ...] = dataset.shape[1:]
        self._id = dataset.id
        self._dtype = dataset.dtype
        self._chunk: int = dataset.chunks[0]
        # Whole unfiltered chunks go to the file as they are, past HDF5's selections and copies.
        self._direct = dataset.chunks[1:] == self.row and not filter_names(dataset)

    def __len__(self) -> int:
        return int(self._id.shape[0])

    def write(self, start: int, values: np.ndarray) -> None:
        """Put rows at [start, start + n) of a dataset with at least `start` rows, and flush them to the file.

        Args:
            start: Index of the first row.
            values: (n, *row).
        """
        values = np.ascontiguousarray(values, self._dtype)
        stop = start + len(values)
        self._id.set_extent((stop, *self.row))
        first, last = self._whole_chunks(start, stop)
        self._select(start, values[: first - start], stop)
        origin = (0,) * len(self.row)
        for index in range(first, last, self._chunk):
            self._id.write_direct_chunk((index, *origin), values[index - start : index - start + self._chunk])
        self._select(last, values[last - start :], stop)
        self._id.flush()

    def _whole_chunks(self, start: int, stop: int) -> tuple[int, int]:
        """Rows [first, last) of [start, stop) that fill chunks; (stop, stop) where there are none."""
        if not self._direct:
            return stop, stop
        first, last = -(-start // self._chunk) * self._chunk, stop // self._chunk * self._chunk
        return (first, last) if first < last else (stop, stop)

    def _select(self, start: int, values: np.ndarray, stop: int) -> None:
        """Put rows at [start, ...) of a dataset of `stop` rows through HDF5's selections."""
        if len(values):
            target = h5py.h5s.create_simple((stop, *self.row))
            target.select_hyperslab((start, *(0,) * len(self.row)), values.shape)
            self._id.write(h5py.h5s.create_simple(values.shape), target, values)

    def truncate(self, stop: int) -> None:
        """Drop the rows from `stop` on.

        HDF5 overwrites dropped rows by the fill value before it shortens the dataset. Going back chunk by
        chunk keeps rows that a kill leaves in between at the end of the dataset.
        """
        while len(self) > stop:
            start_of_last_chunk = (len(self) - 1) // self._chunk * self._chunk
            self._id.set_extent((max(stop, start_of_last_chunk), *self.row))
            self._id.flush()


class Appender:
    """Columns of an existing file that grow together, the time last.

    Attributes:
        path: Where the file is; `rename` changes it.
        num_samples: Rows committed so far: the length of the time.
        fields: name -> column of frames.
        rows: "scalars/{name}" and "coordinates/trajectory" -> column of numbers.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: If HDF5 cannot open it for writing.
            ValueError: If it lacks what the format says a growing file has.
        """
        self.path = path
        self._file = _open(path)
        try:
            self._superblock = LiveSuperblock(path)
            self._reserve(0)
            _check_groups(self._file, path)
        except BaseException:
            self._file.close()
            raise
        self._time = Column(self._file[schema.TIME])
        self.fields = {name: Column(data) for name, data in self._file[schema.FIELDS].items()}
        self.rows = {f"{schema.SCALARS}/{name}": Column(d) for name, d in self._file[schema.SCALARS].items()}
        self.rows[schema.TRAJECTORY] = Column(self._file[schema.TRAJECTORY])
        self.num_samples = len(self._time)

    def append(
        self, fields: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], times: np.ndarray
    ) -> None:
        """Write n samples and commit them.

        Args:
            fields: name -> (n, H, W[, C]) float32.
            rows: Name in `rows` -> (n,).
            times: (n,).

        Raises:
            OSError: If the disk is full or fails; the samples committed before are untouched.
        """
        start = self.num_samples
        payload = sum(block.nbytes for block in fields.values())
        self._reserve(payload)
        for name, block in fields.items():
            self.fields[name].write(start, block)
        for name, values in rows.items():
            self.rows[name].write(start, values)
        self._time.write(start, times)
        self.num_samples = start + len(times)

    def truncate(self, num_samples: int) -> None:
        """Drop the samples from `num_samples` on, the time first: a kill in between does no harm."""
        for column in (self._time, *self.rows.values(), *self.fields.values()):
            column.truncate(num_samples)
        self.num_samples = num_samples

    def reopen(self) -> None:
        """Take back that the file is complete, before anything else changes in it."""
        if self._file[schema.METADATA].attrs["complete"]:
            self._mark(complete=False)
            self._superblock.settle(self._file.id.get_filesize())
            self._file.flush()
            self._reserve(0)

    def rename(self, path: Path) -> None:
        """Move the open file, replacing what is at `path`."""
        os.replace(self.path, path)
        self.path = path

    def sync(self) -> None:
        """Put all that was written on the disk itself."""
        self._superblock.sync()

    def close(self, *, complete: bool) -> None:
        """Drop what a failed append left, mark the file and close it.

        Raises:
            OSError: If HDF5 cannot write its last changes; the committed samples are untouched.
        """
        try:
            self.truncate(self.num_samples)
            self._mark(complete=complete)
            self._superblock.settle(self._file.id.get_filesize())
        finally:
            self._superblock.close()
            self._file.close()
        trim(self.path)

    def _reserve(self, payload: int) -> None:
        """Make room for `payload` bytes of frames and what goes with them."""
        self._superblock.reserve(self._file.id.get_filesize(), payload + _METADATA_SLACK_BYTES)

    def _mark(self, *, complete: bool) -> None:
        """Set the attribute `complete`, which exists from the start (SWMR mode can't add one)."""
        self._file[schema.METADATA].attrs.modify("complete", np.bool_(complete))


def open_unshared(path: Path, mode: Literal["w", "r+"]) -> h5py.File:
    """Open as plain HDF5 does, also where the file system has no locks: ours keeps other writers away."""
    options: dict[str, Any] = {"libver": ("v110", "v110")}
    try:
        return h5py.File(path, mode, **options)
    except OSError as error:
        if REFUSED_LOCK not in str(error):
            raise
        return h5py.File(path, mode, locking=False, **options)


def _open(path: Path) -> h5py.File:
    """Open for SWMR writing without a chunk cache: every row goes to the file once, by its own size."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_cache(0, 0, 0, 0.75)
    flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
    try:
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))
    except OSError as error:
        if REFUSED_LOCK not in str(error):
            raise
        # A reader elsewhere has the file open, or the file system has no locks. SWMR writing does not disturb
        # the reader, and other writers are kept away by our lock. (Not the default, since HDF5 refuses a
        # reader in this process whose locking differs.)
        access.set_file_locking(False, True)
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))


def _check_groups(file: h5py.File, path: Path) -> None:
    """Raise a ValueError where a dataset that appending needs is missing."""
    needed = (schema.FIELDS, schema.SCALARS, schema.METADATA, schema.TIME, schema.TRAJECTORY)
    missing = [f"/{name}" for name in needed if name not in file]
    if missing:
        raise ValueError(
            f"{path}: expected a file written by HDF5Writer, {missing} missing; write a new file"
        )
