"""Lazy reading of the common HDF5 format: complete files, files being written, files of killed writers."""

import os
from pathlib import Path

import h5py
import numpy as np

from solvers.common import schema
from solvers.common.schema import HDF5Info, plain_value
from solvers.common.superblock import SIGNATURE, Superblock, decode


def open_file(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file of the common format for reading.

    Raises:
        ValueError: If the file is missing, is not HDF5, is truncated, or has no /fields; with the remedy.
    """
    path = Path(path)
    superblock = _check_signature(path)
    file = _open(path, swmr=superblock is not None and superblock.open_for_write)
    if not isinstance(file.get(schema.FIELDS), h5py.Group):
        found = sorted(file)
        file.close()
        raise ValueError(f"{path}: expected a group /fields, found {found}; convert the file to the common format first")
    return file


def num_samples(file: h5py.File) -> int:
    """Frames that are complete in every dataset: the time is committed last, so its length says.

    Where there is no time, the shortest field says.
    """
    lengths = [len(dataset) for dataset in file[schema.FIELDS].values()]
    if schema.TIME in file:
        lengths.append(len(file[schema.TIME]))
    return min(lengths, default=0)


def read_hdf5_info(path: str | os.PathLike[str]) -> HDF5Info:
    """All that a file says about itself, without reading a frame.

    Raises:
        ValueError: As `open_file`.
    """
    with open_file(path) as file:
        metadata = file.get(schema.METADATA)
        count = num_samples(file)
        return HDF5Info(
            path=Path(path),
            num_samples=count,
            fields={name: (dataset.shape[1:], dataset.dtype) for name, dataset in file[schema.FIELDS].items()},
            coordinates={name: file[f"{schema.COORDINATES}/{name}"][:] for name in ("x", "y") if
                         f"{schema.COORDINATES}/{name}" in file},
            parameters={name: dataset[()] for name, dataset in file.get(schema.PARAMETERS, {}).items()},
            scalars=tuple(file.get(schema.SCALARS, {})),
            metadata={} if metadata is None else {name: plain_value(value) for name, value in metadata.attrs.items()},
            num_trajectories=_num_trajectories(file, count),
        )


def _num_trajectories(file: h5py.File, count: int) -> int:
    """Distinct trajectory ids among the first `count` samples; 1 where the file has none."""
    if schema.TRAJECTORY not in file or count == 0:
        return 1
    return len(np.unique(file[schema.TRAJECTORY][:count]))


def _check_signature(path: Path) -> Superblock | None:
    """Superblock of an HDF5 file, None for HDF5 files with an older one."""
    if not path.is_file():
        raise ValueError(f"{path}: expected an HDF5 file, found none; check the path")
    with path.open("rb") as file:
        head = file.read(48)
    if not head.startswith(SIGNATURE):
        kind = "an empty file" if not head else f"a file that starts with {head[:8]!r}"
        raise ValueError(f"{path}: expected an HDF5 file, found {kind}; check the path or download it again")
    return decode(head)


def _open(path: Path, *, swmr: bool) -> h5py.File:
    """Open for reading, with one line of error."""
    try:
        return h5py.File(path, "r", swmr=swmr)
    except OSError as error:
        raise ValueError(f"{path}: HDF5 cannot open it ({error}); it is truncated or damaged: copy or write it again") from error
