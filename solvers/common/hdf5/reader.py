"""Lazy reading of the common HDF5 format: complete files, files being written, files of killed writers."""

import os
from pathlib import Path

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.live import SIGNATURE, Superblock, decode
from solvers.common.hdf5.schema import HDF5Info, filter_names, load_plugins, plain_value


def open_file(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file of the common format for reading: complete, being written, or left by a killed writer.

    A file that is being written shows the frames committed when it was opened. HDF5 refuses two handles of
    different kinds on one file in one process, so look at an incomplete file through this function only.
    Frames bypass HDF5's chunk cache (a third faster at 128 x 128, as each is read once), except where a
    compressed chunk holds several.

    Raises:
        ValueError: If the file is missing, is not HDF5, is truncated, or has no /fields; with the remedy.
    """
    path = Path(path)
    superblock = _check_bytes(path)
    try:
        file = _open_safely(path, superblock)
        try:
            _check_fields(path, file)
            if _chunks_need_cache(file):
                swmr = file.swmr_mode
                file.close()
                file = h5py.File(path, "r", swmr=swmr)
        except BaseException:
            file.close()
            raise
        return file
    except (OSError, RuntimeError, KeyError) as error:
        if superblock is not None and superblock.open_for_write:
            remedy = "another program is writing it, or died while it did: then run `h5clear -s` on it"
        else:
            remedy = "it is truncated or damaged: copy, download or write it again"
        reason = str(error).splitlines()[0].strip("'\"")
        raise ValueError(f"{path}: HDF5 cannot open it ({reason}); {remedy}") from error


def field_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Datasets of /fields by name."""
    return {name: item for name, item in file[schema.FIELDS].items() if isinstance(item, h5py.Dataset)}


def num_samples(file: h5py.File) -> int:
    """Frames that are complete in every dataset: the time is committed last, so its length says.

    Where there is no time, the shortest field says.
    """
    lengths = [dataset.shape[0] for dataset in field_datasets(file).values() if dataset.ndim]
    if schema.TIME in file:
        lengths.append(num_times(file))
    return min(lengths, default=0)


def num_times(file: h5py.File) -> int:
    """Return committed times: all of them, less those at the end that a resumed run was about to drop
    (NaN)."""
    time = file[schema.TIME]
    count = len(time)
    if not is_complete(file):
        while count and np.isnan(time[count - 1]):
            count -= 1
    return count


def read_hdf5_info(path: str | os.PathLike[str]) -> HDF5Info:
    """All that a file says about itself, without reading a frame.

    Raises:
        ValueError: As `open_file`.
    """
    with open_file(path) as file:
        count = num_samples(file)
        coordinates = {
            name: file[full][:] for name, full in (("x", schema.X), ("y", schema.Y)) if full in file
        }
        attributes = file[schema.METADATA].attrs.items() if schema.METADATA in file else ()
        return HDF5Info(
            path=Path(path),
            num_samples=count,
            fields={
                name: (dataset.shape[1:], dataset.dtype) for name, dataset in field_datasets(file).items()
            },
            coordinates=coordinates,
            parameters={name: dataset[()] for name, dataset in file.get(schema.PARAMETERS, {}).items()},
            scalars=tuple(file.get(schema.SCALARS, ())),
            metadata={name: plain_value(value) for name, value in attributes},
            num_trajectories=_num_trajectories(file, count),
        )


def _num_trajectories(file: h5py.File, count: int) -> int:
    """Distinct trajectory ids among the first `count` samples; 1 where the file has none."""
    if schema.TRAJECTORY not in file or count == 0:
        return 1
    return len(np.unique(file[schema.TRAJECTORY][:count]))


def is_complete(file: h5py.File) -> bool:
    """Whether no writer can be at work: the file says so, or it says nothing (foreign and older files)."""
    metadata = file.get(schema.METADATA)
    return metadata is None or bool(metadata.attrs.get("complete", True))


def _check_bytes(path: Path) -> Superblock | None:
    """Superblock of a file that starts as HDF5 does; None where it is of an older version."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise ValueError(f"{path}: expected an HDF5 file, found {found}; check the path")
    with path.open("rb") as file:
        head = file.read(48)
    size = path.stat().st_size
    if not head.startswith(SIGNATURE):
        kind = f"a file that starts with {head[:8]!r}" if head else "an empty file"
        raise ValueError(f"{path}: expected an HDF5 file, found {kind}; check the path or download it again")
    superblock = decode(head)
    if superblock is not None and size < superblock.end_of_file:
        raise ValueError(
            f"{path}: truncated, expected {superblock.end_of_file} bytes, found {size}; "
            "copy or download it again"
        )
    return superblock


def _open_safely(path: Path, superblock: Superblock | None) -> h5py.File:
    """Open plainly where no writer can be at work, else in SWMR mode, which repeats torn reads."""
    if superblock is None or superblock.version < 3:
        return _open(path, swmr=False)
    if superblock.open_for_write:
        return _open(path, swmr=True)
    try:
        file = _open(path, swmr=False)
        if is_complete(file):
            return file
        file.close()
    except (OSError, RuntimeError, KeyError):
        # Half-written metadata, or damage, which then fails again here.
        return _open(path, swmr=True)
    try:
        return _open(path, swmr=True)
    except OSError:
        # This process holds the file open plainly already, and HDF5 wants all its handles alike.
        return _open(path, swmr=False)


def _open(path: Path, *, swmr: bool) -> h5py.File:
    """Open for reading, without a cache of chunks."""
    return h5py.File(path, "r", swmr=swmr, rdcc_nbytes=0)


def _check_fields(path: Path, file: h5py.File) -> None:
    """Check that there is a group of fields, and that what compresses them is at hand."""
    if not isinstance(file.get(schema.FIELDS), h5py.Group):
        raise ValueError(
            f"{path}: expected a group /fields, found {sorted(file)}; convert it to the common format first"
        )
    for dataset in field_datasets(file).values():
        load_plugins(path, dataset)


def _chunks_need_cache(file: h5py.File) -> bool:
    """Whether a frame shares its compressed chunk with others, or is spread over several."""
    return any(
        filter_names(dataset) and dataset.chunks != (1, *dataset.shape[1:])
        for dataset in field_datasets(file).values()
    )
