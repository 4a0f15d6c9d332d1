"""Rewrites one file with the chunks and the compression of the common format, a block of frames at a time."""

import os
from pathlib import Path

import h5py
import numpy as np

from solvers.common.files import WriterLock
from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import field_datasets, num_samples, open_file
from solvers.common.hdf5.schema import compression_options
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

    Frames without all their data (the last one of a killed writer) are dropped and fields become float32.
    All else is copied as it is. The new file is written aside, put on disk and renamed.

    Args:
        path: File to read.
        output: File to write; by default it replaces `path`.
        compression: None, "lz4" or "gzip".
        overwrite: Replace an existing `output`.
        progress: Display that counts frames, those of each field.

    Returns:
        The file written.

    Raises:
        ValueError: If `path` is not a file of the format, or a field is not (n, H, W) or (n, H, W, C).
        FileExistsError: If `output` exists and `overwrite` is False.
        BlockingIOError: If the file to write is being written by another process.
        OSError: If the disk is full; what was there stays.
    """
    target = Path(path if output is None else output)
    if output is not None and target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: choose another --output or replace it with --overwrite")
    lock = WriterLock(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with open_file(path) as source, h5py.File(partial, "w", libver=("v110", "v110")) as file:
            _copy(source, file, compression, progress)
        descriptor = os.open(partial, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
        lock.release()
    return target


def _copy(source: h5py.File, file: h5py.File, compression: str | None, progress: Progress | None) -> None:
    """Copy all of `source` into the empty `file`."""
    count = num_samples(source)
    for name, value in source.attrs.items():
        file.attrs[name] = value
    for name, dataset in field_datasets(source).items():
        if dataset.ndim not in (3, 4):
            raise ValueError(
                f"{source.filename}: field {name!r}: expected (n_samples, H, W) or (n_samples, H, W, C), "
                f"found {dataset.shape}; remove it or convert the file first"
            )
        _copy_field(dataset, file, f"{schema.FIELDS}/{name}", count, compression, progress)
    scalars = [f"{schema.SCALARS}/{name}" for name in source.get(schema.SCALARS, ())]
    for name in (schema.TIME, schema.TRAJECTORY, *scalars):
        if name in source:
            _copy_row(source[name], file, name, count)
    for group in source:
        if group in (schema.COORDINATES, schema.SCALARS):
            file.require_group(group)
            for name in source[group]:
                if f"{group}/{name}" not in file:
                    source.copy(f"{group}/{name}", file[group])
        elif group != schema.FIELDS:
            source.copy(group, file)


def _copy_field(
    dataset: h5py.Dataset,
    file: h5py.File,
    name: str,
    count: int,
    compression: str | None,
    progress: Progress | None,
) -> None:
    """Copy the first `count` frames of a field."""
    frame = dataset.shape[1:]
    frame_bytes = int(np.prod(frame)) * schema.FIELD_DTYPE.itemsize
    chunk = schema.frames_per_chunk(frame_bytes)
    copy = file.create_dataset(
        name,
        shape=(count, *frame),
        maxshape=(None, *frame),
        chunks=(chunk, *frame),
        dtype=schema.FIELD_DTYPE,
        **compression_options(compression),
    )
    for attribute, value in dataset.attrs.items():
        copy.attrs[attribute] = value
    step = _frames_per_block(dataset, frame_bytes, chunk)
    for start in range(0, count, step):
        stop = min(start + step, count)
        copy[start:stop] = dataset[start:stop]
        if progress is not None:
            progress.update(stop - start)


def _frames_per_block(dataset: h5py.Dataset, frame_bytes: int, chunk: int) -> int:
    """Frames to hold in memory at once: whole chunks of the source too, unless those are huge."""
    frames = max(1, BLOCK_BYTES // frame_bytes, chunk)
    source_chunk = dataset.chunks[0] if dataset.chunks else 1
    if source_chunk * frame_bytes <= MAX_BLOCK_BYTES:
        frames = -(-frames // source_chunk) * source_chunk
    return -(-frames // chunk) * chunk


def _copy_row(dataset: h5py.Dataset, file: h5py.File, name: str, count: int) -> None:
    """Copy the first `count` entries of a dataset that grows with the samples."""
    chunks = (schema.ROW_CHUNK, *dataset.shape[1:])
    maxshape = (None, *dataset.shape[1:])
    fill = dataset.fillvalue
    file.create_dataset(name, data=dataset[:count], maxshape=maxshape, chunks=chunks, fillvalue=fill)
