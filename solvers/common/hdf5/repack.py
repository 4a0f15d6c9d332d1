"""Rewrites one file with the chunks and the compression of the common format, a block of frames at a time."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from solvers.common.files import WriterLock, path_aside
from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import open_file
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, check_float32
from solvers.common.progress import Progress

BLOCK_BYTES = 8 << 20
MAX_BLOCK_BYTES = 256 << 20


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
        output: File to write, returned; by default it replaces `path`.
        compression: None, "lz4" or "gzip".
        overwrite: Replace an existing `output`.
        progress: Display that counts frames, those of each field.

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
    with WriterLock(target), path_aside(target) as partial, _Guarded(partial, "x+b") as guarded:
        with open_file(path) as source, h5py.File(guarded, "w", libver=("v110", "v110")) as file:
            for frames in _copy(Contents(source, str(path)), file, compression):
                guarded.check()
                if progress is not None:
                    progress.update(frames)
        guarded.check()
    return target


class _Guarded(io.FileIO):
    """A file whose first failed write is remembered: HDF5 crashes when it cannot write what it must close."""

    error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def write(self, block: object) -> int:
        """Write what there is room for, and say that all was written."""
        view = memoryview(block)  # type: ignore[arg-type]
        done = 0
        while self.error is None and done < view.nbytes:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.error = error
        return view.nbytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _copy(contents: Contents, file: h5py.File, compression: str | None) -> Iterator[int]:
    """Copy everything into an empty file; yields after each step how many frames it copied."""
    source, path = contents.file, contents.path
    fields = contents.names(schema.FIELDS)
    scalars = [f"{schema.SCALARS}/{name}" for name in contents.names(schema.SCALARS)]
    if not fields:
        raise ValueError(f"{path}: /fields: expected at least one dataset, found none; write the file again")
    for name in (schema.X, schema.Y):
        contents.dataset(name)  # checked, and copied as it is
    count = contents.count(fields, more=scalars)
    file.attrs.update(source.attrs)
    for name in [*(f"{schema.FIELDS}/{field}" for field in fields), schema.TIME, schema.TRAJECTORY, *scalars]:
        dataset = contents.dataset(name)
        if dataset is None:
            continue
        if problem := storage_problem(dataset, count):
            raise ValueError(f"{path}: /{name}: {problem}; write the file again, or convert what is there")
        group, _, short = name.partition("/")
        group = file.require_group(group)
        same = [other for other in group if contents.is_same(f"{group.name}/{other}".strip("/"), name)]
        if same:  # two names of one dataset
            group[short] = group[same[0]]
        elif dataset.ndim > 1:
            yield from _copy_field(dataset, group, short, count, compression, f"{path}: /{name}")
        else:
            copy = schema.create_rows(group, short, dataset[:count], dataset.fillvalue)
            copy.attrs.update(dataset.attrs)
        yield 0
    for name in source:
        if name in (schema.FIELDS, schema.COORDINATES, schema.SCALARS):
            group = file.require_group(name)
            for member in () if name == schema.FIELDS else source[name]:
                _copy_object(source, file, f"{name}/{member}")
                yield 0
        else:
            _copy_object(source, file, name)
            yield 0


def _copy_field(
    dataset: h5py.Dataset, group: h5py.Group, name: str, count: int, compression: str | None, where: str
) -> Iterator[int]:
    """Copy the first `count` frames of a field; yields their numbers block by block."""
    frame = dataset.shape[1:]
    frame_bytes = int(np.prod(frame)) * schema.FIELD_DTYPE.itemsize
    chunk = schema.frames_per_chunk(frame_bytes)
    copy = schema.create_field(group, name, frame, count=count, chunk=chunk, compression=compression)
    copy.attrs.update(dataset.attrs)
    # Whole chunks of the source too, unless those are huge.
    step = max(1, BLOCK_BYTES // frame_bytes, chunk)
    source_chunk = dataset.chunks[0] if dataset.chunks else 1
    if source_chunk * frame_bytes <= MAX_BLOCK_BYTES:
        step = -(-step // source_chunk) * source_chunk
    step = -(-step // chunk) * chunk
    for start in range(0, count, step):
        stop = min(start + step, count)
        copy[start:stop] = check_float32(dataset[start:stop], f"{where}, samples {start} to {stop - 1}")
        yield stop - start


def _copy_object(source: h5py.File, file: h5py.File, name: str) -> None:
    """Copy a group, dataset or link that is none of those that grow."""
    link = source.get(name, getlink=True)
    if name in file:
        return
    if not isinstance(link, h5py.HardLink):
        file[name] = link
    elif source[name] == source["/"]:  # a group that contains itself
        file[name] = file["/"]
    else:
        parent, _, short = name.rpartition("/")
        source.copy(source[name], file[parent or "/"], name=short)
