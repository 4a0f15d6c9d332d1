"""Rewrites one file with the chunks and the compression of the common format, a block of frames at a time."""

import io
import logging
import os
from pathlib import Path

import h5py
import numpy as np

from solvers.common.files import WriterLock, path_aside
from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import open_file
from solvers.common.hdf5.schema import compression_options
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, check_float32
from solvers.common.progress import Progress

BLOCK_BYTES = 8 << 20
MAX_BLOCK_BYTES = 256 << 20

logger = logging.getLogger(__name__)


def repack(
    path: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    compression: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a file anew with one frame a chunk (tiny frames grouped), so that a random frame is one read.

    Fields become float32, all else is copied as it is. No frame of a complete file is left out; of one whose
    writer was stopped, the last that lacks a part of its data is. The new file is written aside, put on disk
    and renamed.

    Args:
        path: File to read.
        output: File to write; by default it replaces `path`.
        compression: None, "lz4" or "gzip".
        overwrite: Replace an existing `output`.
        progress: Display that counts frames, those of each field.

    Returns:
        The file written.

    Raises:
        ValueError: If `path` is not a file of the format, its datasets have different numbers of samples, or
            some of these are not stored.
        FileExistsError: If `output` exists and `overwrite` is False.
        BlockingIOError: If the file to write is being written by another process.
        OSError: If the disk is full; what was there stays.
    """
    target = Path(path if output is None else output)
    if output is not None and target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: choose another --output or replace it with --overwrite")
    lock = WriterLock(target)
    try:
        with path_aside(target) as partial, partial.open("x+b", buffering=0) as raw:
            guarded = _Guarded(raw)
            with open_file(path) as source, h5py.File(guarded, "w", libver=("v110", "v110")) as file:
                _Copy(Contents(source, str(path)), file, guarded, compression, progress).run()
            guarded.check()
    finally:
        lock.release()
    return target


class _Guarded(io.RawIOBase):
    """A file whose first failed write is remembered: HDF5 crashes when it cannot write what it must close."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error of a write that failed."""
        if self._error is not None:
            raise self._error

    def write(self, block: object) -> int:
        """Write what there is room for, and say that all was written."""
        view = memoryview(block)  # type: ignore[arg-type]
        done = 0
        while self._error is None and done < view.nbytes:
            try:
                done += self._raw.write(view[done:])
            except OSError as error:
                self._error = error
        return view.nbytes

    def readinto(self, block: object) -> int:
        """Read."""
        return self._raw.readinto(block)  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._raw.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def flush(self) -> None:
        """Do nothing before `check`."""


class _Copy:
    """One file's content on its way into an empty one."""

    def __init__(
        self,
        contents: Contents,
        file: h5py.File,
        guarded: _Guarded,
        compression: str | None,
        progress: Progress | None,
    ) -> None:
        self._contents, self._source, self._path = contents, contents.file, contents.path
        self._file, self._guarded = file, guarded
        self._compression, self._progress = compression, progress

    def run(self) -> None:
        """Check and copy everything."""
        contents = self._contents
        fields = contents.names(schema.FIELDS)
        if not fields:
            raise ValueError(f"{self._path}: /fields: expected at least one dataset, found none")
        for name in (schema.X, schema.Y):
            contents.dataset(name)  # checked, and copied as it is
        count = contents.count(
            fields, more=[f"{schema.SCALARS}/{name}" for name in contents.names(schema.SCALARS)]
        )
        for name, value in self._source.attrs.items():
            self._file.attrs[name] = value
        for i, name in enumerate(fields):
            same = [other for other in fields[:i] if contents.is_same(f"fields/{other}", f"fields/{name}")]
            if same:  # two names of one dataset
                self._file[f"{schema.FIELDS}/{name}"] = self._file[f"{schema.FIELDS}/{same[0]}"]
            else:
                self._copy_field(f"{schema.FIELDS}/{name}", count)
        rows = [
            schema.TIME,
            schema.TRAJECTORY,
            *(f"{schema.SCALARS}/{n}" for n in contents.names(schema.SCALARS)),
        ]
        for name in rows:
            if (dataset := contents.dataset(name)) is not None:
                self._check_stored(name, dataset, count)
                self._copy_row(dataset, name, count)
        for name in self._source:
            if name in (schema.COORDINATES, schema.SCALARS):
                copied = self._file.require_group(name)
                for member in self._source[name]:
                    if member not in copied:
                        self._copy_object(f"{name}/{member}")
            elif name != schema.FIELDS:
                self._copy_object(name)
        self._guarded.check()

    def _check_stored(self, name: str, dataset: h5py.Dataset, count: int) -> None:
        if problem := storage_problem(dataset, count):
            raise ValueError(
                f"{self._path}: /{name}: {problem}; write the file again, or convert what is there"
            )

    def _copy_object(self, name: str) -> None:
        """Copy a group, dataset or link that is none of those that grow."""
        link = self._source.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            self._file[name] = link
        elif self._source[name] == self._source["/"]:  # a group that contains itself
            self._file[name] = self._file["/"]
        elif name not in self._file:
            parent = name.rpartition("/")[0]
            self._source.copy(self._source[name], self._file[parent or "/"], name=name.rpartition("/")[2])
        self._guarded.check()

    def _copy_field(self, name: str, count: int) -> None:
        """Copy the first `count` frames of a field."""
        dataset = self._contents.dataset(name)
        assert dataset is not None
        self._check_stored(name, dataset, count)
        frame = dataset.shape[1:]
        frame_bytes = int(np.prod(frame)) * schema.FIELD_DTYPE.itemsize
        chunk = schema.frames_per_chunk(frame_bytes)
        copy = self._file.create_dataset(
            name,
            shape=(count, *frame),
            maxshape=(None, *frame),
            chunks=(chunk, *frame),
            dtype=schema.FIELD_DTYPE,
            **compression_options(self._compression),
        )
        for attribute, value in dataset.attrs.items():
            copy.attrs[attribute] = value
        step = _frames_per_block(dataset, frame_bytes, chunk)
        for start in range(0, count, step):
            stop = min(start + step, count)
            block = dataset[start:stop]
            copy[start:stop] = check_float32(block, f"{self._path}: /{name}, samples {start} to {stop - 1}")
            self._guarded.check()
            if self._progress is not None:
                self._progress.update(stop - start)

    def _copy_row(self, dataset: h5py.Dataset, name: str, count: int) -> None:
        """Copy the first `count` entries of a dataset that grows with the samples."""
        copy = self._file.create_dataset(
            name,
            data=dataset[:count],
            maxshape=(None,),
            chunks=(schema.ROW_CHUNK,),
            fillvalue=dataset.fillvalue,
        )
        for attribute, value in dataset.attrs.items():
            copy.attrs[attribute] = value
        self._guarded.check()


def _frames_per_block(dataset: h5py.Dataset, frame_bytes: int, chunk: int) -> int:
    """Frames to hold in memory at once: whole chunks of the source too, unless those are huge."""
    frames = max(1, BLOCK_BYTES // frame_bytes, chunk)
    source_chunk = dataset.chunks[0] if dataset.chunks else 1
    if source_chunk * frame_bytes <= MAX_BLOCK_BYTES:
        frames = -(-frames // source_chunk) * source_chunk
    return -(-frames // chunk) * chunk
