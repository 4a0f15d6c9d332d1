"""Checks a file against the common HDF5 format and lists every violation at once."""

import os
import sys
from collections.abc import Iterator

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import is_complete, num_times, open_file


def validate(path: str | os.PathLike[str]) -> list[str]:
    """Every violation of the format in a file; an empty list means that it is valid.

    Reads coordinates and per-sample rows but no fields. Files with only /fields, /coordinates/x,y and
    /metadata are valid; what later versions added is checked where it is present, the metadata where there
    is a `format_version`.
    """
    try:
        file = open_file(path)
    except ValueError as error:
        return [str(error)]
    with file:
        committed = _committed(file)
        return [
            *_check_groups(file),
            *_check_fields(file),
            *_check_axes(file),
            *_check_rows(file, committed),
            *_check_trajectories(file, committed),
            *_check_metadata(file),
        ]


def _check_groups(file: h5py.File) -> Iterator[str]:
    """Yield the groups every file has."""
    for name in (schema.COORDINATES, schema.METADATA):
        if not isinstance(file.get(name), h5py.Group):
            yield f"/{name}: expected a group, found none"
    for name in (schema.PARAMETERS, schema.SCALARS):
        if name in file and not isinstance(file[name], h5py.Group):
            yield f"/{name}: expected a group, found a dataset"


def _members(file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
    """Datasets of a group by full name; empty where there is no such group."""
    members = file.get(group)
    if not isinstance(members, h5py.Group):
        return {}
    return {f"/{group}/{name}": item for name, item in members.items() if isinstance(item, h5py.Dataset)}


def _check_fields(file: h5py.File) -> Iterator[str]:
    """Ranks, types and grids of the fields."""
    fields = _members(file, schema.FIELDS)
    if not fields:
        yield "/fields: expected at least one dataset, found none"
    grids = set()
    for name, dataset in fields.items():
        if dataset.ndim not in (3, 4):
            yield f"{name}: expected (n_samples, H, W) or (n_samples, H, W, C), found shape {dataset.shape}"
            continue
        grids.add(dataset.shape[1:3])
        if dataset.dtype != schema.FIELD_DTYPE:
            yield f"{name}: expected float32, found {dataset.dtype}"
    if len(grids) > 1:
        yield f"/fields: expected one grid for all fields, found {sorted(grids)}"


def _check_axes(file: h5py.File) -> Iterator[str]:
    """x and y: rank, type, length, finite and increasing."""
    grids = {item.shape[1:3] for item in _members(file, schema.FIELDS).values() if item.ndim in (3, 4)}
    for axis, name in enumerate((schema.X, schema.Y)):
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            yield f"/{name}: expected a dataset, found none"
            continue
        if dataset.ndim != 1 or dataset.dtype.kind != "f":
            yield f"/{name}: expected 1-D float32, found shape {dataset.shape} {dataset.dtype}"
            continue
        if dataset.dtype != schema.FIELD_DTYPE:
            yield f"/{name}: expected float32, found {dataset.dtype}"
        if len(grids) == 1 and len(dataset) != (expected := next(iter(grids))[axis]):
            yield f"/{name}: expected {expected} entries as the fields' axis {axis + 1}, found {len(dataset)}"
        values = dataset[:]
        if not np.isfinite(values).all():
            yield f"/{name}: expected finite coordinates, found {_not_finite(values)} NaN or infinite"
        elif (np.diff(values) <= 0).any():
            yield f"/{name}: expected strictly increasing coordinates"


def _check_rows(file: h5py.File, committed: int | None) -> Iterator[str]:
    """Lengths and types of everything that grows with the samples, of which `committed` have a time."""
    rows = {
        **_members(file, schema.SCALARS),
        **{f"/{name}": file[name] for name in (schema.TIME, schema.TRAJECTORY) if name in file},
    }
    for name, dataset in rows.items():
        kind = "i" if name == f"/{schema.TRAJECTORY}" else "f"
        wanted = "an integer type" if kind == "i" else "float64"
        if dataset.ndim != 1:
            yield f"{name}: expected shape (n_samples,), found {dataset.shape}"
        if dataset.dtype.kind != kind or (kind == "f" and dataset.dtype.itemsize != 8):
            yield f"{name}: expected {wanted}, found {dataset.dtype}"
    lengths = {
        name: dataset.shape[0]
        for name, dataset in {**_members(file, schema.FIELDS), **rows}.items()
        if dataset.ndim > 0 and name != f"/{schema.TIME}"
    }
    expected = max(lengths.values(), default=0) if committed is None else committed
    # Until a file is complete its last sample may lack its time, which is committed last, but nothing else.
    longest = expected if is_complete(file) else sys.maxsize
    for name, length in lengths.items():
        if not expected <= length <= longest:
            yield f"{name}: expected {expected} samples, found {length}"


def _check_trajectories(file: h5py.File, committed: int | None) -> Iterator[str]:
    """Yield times increase within each trajectory, ids are in the range of /parameters."""
    parameters = _members(file, schema.PARAMETERS)
    for name, dataset in parameters.items():
        if dataset.ndim != 1 or dataset.dtype.kind != "f":
            yield f"{name}: expected (n_trajectories,) float64, found {dataset.shape} {dataset.dtype}"
    counts = {name: dataset.shape[0] for name, dataset in parameters.items() if dataset.ndim == 1}
    if len(set(counts.values())) > 1:
        yield f"/{schema.PARAMETERS}: expected equal lengths, found {counts}"
    time, trajectory = (_row(file, name, committed) for name in (schema.TIME, schema.TRAJECTORY))
    if trajectory is not None and len(trajectory):
        limit = max(counts.values(), default=np.iinfo(np.int64).max)
        if trajectory.min() < 0 or trajectory.max() >= limit:
            yield (
                f"/{schema.TRAJECTORY}: expected ids from 0 to {limit - 1} (the range of "
                f"/{schema.PARAMETERS}), found {trajectory.min()} to {trajectory.max()}"
            )
    if time is not None:
        yield from _check_time(time, trajectory)


def _check_time(time: np.ndarray, trajectory: np.ndarray | None) -> Iterator[str]:
    """Finite times that increase within each trajectory."""
    if not np.isfinite(time).all():
        yield f"/{schema.TIME}: expected finite times, found {_not_finite(time)} NaN or infinite"
        return
    if trajectory is None:
        trajectory = np.zeros(len(time), np.int32)
    count = min(len(time), len(trajectory))
    order = np.argsort(trajectory[:count], kind="stable")
    same = np.diff(trajectory[order]) == 0
    falls = np.flatnonzero(same & (np.diff(time[order]) <= 0))
    if len(falls):
        sample = order[falls[0] + 1]
        yield (
            f"/{schema.TIME}: expected times that increase within a trajectory, found {len(falls)} that do "
            f"not, the first at sample {sample} (trajectory {trajectory[sample]}, time {time[sample]})"
        )


def _committed(file: h5py.File) -> int | None:
    """Length of the time, None where there is none; refreshes all lengths of a file that is being written.

    The time is looked at first and committed last, so nothing looked at later is shorter than it.
    """
    time = file.get(schema.TIME)
    if not (isinstance(time, h5py.Dataset) and time.ndim == 1):
        return None
    if not file.swmr_mode:
        return num_times(file)
    time.refresh()
    committed = num_times(file)
    grown = (*_members(file, schema.FIELDS).values(), *_members(file, schema.SCALARS).values())
    for dataset in (*grown, *(file[name] for name in (schema.TRAJECTORY,) if name in file)):
        dataset.refresh()
    return committed


def _not_finite(values: np.ndarray) -> int:
    """Return the number of NaN and infinite entries."""
    return int((~np.isfinite(values)).sum())


def _row(file: h5py.File, name: str, count: int | None) -> np.ndarray | None:
    """First `count` values of a 1-D dataset (all where None), None where there is none."""
    dataset = file.get(name)
    return dataset[:count] if isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 else None


def _check_metadata(file: h5py.File) -> Iterator[str]:
    """Yield the required attributes (only where a format version claims them) and known values."""
    group = file.get(schema.METADATA)
    if not isinstance(group, h5py.Group):
        return
    metadata = {name: schema.plain_value(value) for name, value in group.attrs.items()}
    version = metadata.get("format_version")
    if version is not None:
        if version != schema.FORMAT_VERSION:
            yield f"/metadata: expected format_version {schema.FORMAT_VERSION}, found {version}"
        for name in schema.REQUIRED_METADATA:
            if name not in metadata:
                yield f"/metadata: expected the attribute {name!r}, found none"
    allowed = {"boundary_x": schema.BOUNDARIES, "boundary_y": schema.BOUNDARIES, "grid_y": schema.GRIDS}
    for name, choices in allowed.items():
        if name in metadata and metadata[name] not in choices:
            yield f"/metadata: expected {name} to be one of {choices}, found {metadata[name]!r}"
