"""Checks a file against the common HDF5 format and lists every violation at once."""

import os
from collections.abc import Iterator

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.axes import BOUNDARIES, GRIDS, domain
from solvers.common.hdf5.reader import is_complete, open_file
from solvers.common.hdf5.schema import FIELDS, PARAMETERS, SCALARS, TIME, TRAJECTORY
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, rule_of

Datasets = dict[str, h5py.Dataset]
"""Those of a file that can be looked at, by full name."""

_REQUIRED_METADATA = (
    "format_version",
    "solver",
    "boundary_x",
    "boundary_y",
    "grid_y",
    "package_version",
    "git_commit",
    "complete",
)


def validate(path: str | os.PathLike[str], *, allow_external: bool = False) -> list[str]:
    """Every violation of the format in a file; an empty list means that it is valid.

    Reads coordinates and per-sample rows but no fields. Files with only /fields, /coordinates/x,y and
    /metadata are valid; what later versions added is checked where it is present, the metadata where there
    is a `format_version`.

    Args:
        path: The file.
        allow_external: Follow links and external storage to other files.
    """
    try:
        file = open_file(path, allow_external=allow_external)
    except ValueError as error:
        return [str(error)]
    with file:
        contents = Contents(file, str(path), allow_external=allow_external)
        datasets: Datasets = {}
        problems = [
            text
            for group in (FIELDS, schema.COORDINATES, PARAMETERS, SCALARS, schema.METADATA)
            for text in _look(contents, group, datasets)
        ]
        if not datasets or any("/metadata: expected a group, found a" in text for text in problems):
            return problems
        try:
            return [*problems, *_check(contents, datasets)]
        except (OSError, RuntimeError) as error:
            return [*problems, f"{path}: HDF5 cannot read it ({error}); copy or write it again"]


def _look(contents: Contents, group: str, datasets: Datasets) -> Iterator[str]:
    """Put the datasets of a group in `datasets`; yields what is wrong with it and all others in it."""
    try:
        names = contents.names(group) if group != schema.METADATA else []
        if contents.group(group) is None and group in (FIELDS, schema.COORDINATES, schema.METADATA):
            yield f"/{group}: expected a group, found none"
            return
    except ValueError as error:
        yield str(error).removeprefix(f"{contents.path}: ")
        return
    if group == schema.COORDINATES:
        names = ["x", "y", *(name for name in ("time", "trajectory") if name in names)]
    if group == FIELDS and not names:
        yield "/fields: expected at least one dataset, found none"
    for name in (f"{group}/{name}" for name in names):
        try:
            dataset = contents.dataset(name)
        except ValueError as error:
            yield str(error).removeprefix(f"{contents.path}: ")
            continue
        if dataset is None:
            yield f"/{name}: expected a dataset, found none"
            continue
        datasets[name] = dataset
        rule = rule_of(name)
        if dataset.ndim == 0:
            yield f"/{name}: expected {rule.shape} {rule.dtype.name}, found a single number"
        if dataset.dtype != rule.dtype and not rule.dtype.kind == dataset.dtype.kind == "i":
            wanted = "an integer type" if rule.dtype.kind == "i" else rule.dtype.name
            yield f"/{name}: expected {wanted}, found {dataset.dtype}"


def _check(contents: Contents, datasets: Datasets) -> Iterator[str]:
    """Yield what is wrong between datasets, and in their values."""
    growing = not is_complete(contents.file)
    committed = _committed(contents, datasets)
    yield from _check_lengths(datasets, committed, growing=growing)
    for name, dataset in datasets.items():
        count = committed if growing and name.startswith((f"{FIELDS}/", f"{SCALARS}/")) else None
        if problem := storage_problem(dataset, count, allow_external=contents.allow_external):
            yield f"/{name}: {problem}"
            return  # what is not there cannot be read
    axes = {name[-1]: datasets[name][:] for name in (schema.X, schema.Y) if name in datasets}
    problems = list(_check_axes(axes))
    yield from problems
    yield from _check_trajectories(datasets, committed)
    metadata_problems = list(_check_metadata(contents))
    yield from metadata_problems
    if len(axes) == 2 and min(map(len, axes.values())) > 1 and not problems and not metadata_problems:
        try:
            domain(axes, contents.metadata)
        except ValueError as error:
            yield str(error)


def _committed(contents: Contents, datasets: Datasets) -> int | None:
    """Length of the time, None where there is none; refreshes all lengths of a file that is being written.

    The time is looked at first and committed last, so nothing looked at later is shorter than it.
    """
    if TIME not in datasets:
        return None
    live = contents.file.swmr_mode
    if live:
        datasets[TIME].refresh()
    committed = contents.num_times()
    for name, dataset in datasets.items() if live else ():
        if name.startswith((f"{FIELDS}/", f"{SCALARS}/")) or name == TRAJECTORY:
            dataset.refresh()
    return committed


def _check_lengths(datasets: Datasets, committed: int | None, *, growing: bool) -> Iterator[str]:
    """One grid, and one number of samples, of which `committed` have a time."""
    grids = {item.shape[1:3] for name, item in datasets.items() if name.startswith(f"{FIELDS}/")}
    if len(grids) > 1:
        yield f"/fields: expected one grid for all fields, found {sorted(grids)}"
    for i, name in enumerate((schema.X, schema.Y), 1):
        if name in datasets and len(grids) == 1 and len(datasets[name]) != (size := min(grids)[i - 1]):
            yield f"/{name}: expected {size} entries as the fields' axis {i}, found {len(datasets[name])}"
    lengths = {
        name: item.shape[0]
        for name, item in datasets.items()
        if name.startswith((f"{FIELDS}/", f"{SCALARS}/")) or name == TRAJECTORY
    }
    expected = max(lengths.values(), default=0) if committed is None else committed
    for name, length in lengths.items():
        # Until a file is complete its last sample may lack its time, which is committed last, but
        # nothing else.
        if length < expected or (length > expected and not growing):
            yield f"/{name}: expected {expected} samples, found {length}"


def _check_axes(axes: dict[str, np.ndarray]) -> Iterator[str]:
    """x and y: finite and increasing."""
    for name, values in axes.items():
        if not np.isfinite(values).all():
            yield f"/coordinates/{name}: expected finite coordinates, found {_not_finite(values)}"
        elif (np.diff(values) <= 0).any():
            yield f"/coordinates/{name}: expected strictly increasing coordinates"


def _check_trajectories(datasets: Datasets, committed: int | None) -> Iterator[str]:
    """Ids in the range of /parameters, and finite times that increase within each trajectory."""
    counts = {
        f"/{name}": len(item)
        for name, item in datasets.items()
        if name.startswith(f"{PARAMETERS}/") and item.ndim == 1
    }
    if len(set(counts.values())) > 1:
        yield f"/{PARAMETERS}: expected equal lengths, found {counts}"
    time = datasets[TIME][:committed] if TIME in datasets else np.zeros(0)
    trajectory = datasets[TRAJECTORY][:committed] if TRAJECTORY in datasets else np.zeros(len(time), int)
    if not np.isfinite(trajectory).all() or (trajectory != np.floor(trajectory)).any():
        yield f"/{TRAJECTORY}: expected whole numbers, found {trajectory.dtype} values that are none"
        return
    last = max(counts.values(), default=np.iinfo(np.int64).max) - 1
    if len(trajectory) and (trajectory.min() < 0 or trajectory.max() > last):
        yield (
            f"/{TRAJECTORY}: expected ids from 0 to {last} (the range of /{PARAMETERS}), found "
            f"{trajectory.min()} to {trajectory.max()}"
        )
    if not np.isfinite(time).all():
        yield f"/{TIME}: expected finite times, found {_not_finite(time)}"
        return
    order = np.argsort(trajectory[: len(time)], kind="stable")
    falls = np.flatnonzero((np.diff(trajectory[order]) == 0) & (np.diff(time[order]) <= 0))
    if len(falls):
        sample = order[falls[0] + 1]
        yield (
            f"/{TIME}: expected times that increase within a trajectory, found {len(falls)} that do not, "
            f"the first at sample {sample} (trajectory {trajectory[sample]}, time {time[sample]})"
        )


def _not_finite(values: np.ndarray) -> str:
    return f"{int((~np.isfinite(values)).sum())} NaN or infinite"


def _check_metadata(contents: Contents) -> Iterator[str]:
    """Yield missing attributes (only where a format version claims them) and unknown values."""
    metadata = contents.metadata
    version = metadata.get("format_version", schema.FORMAT_VERSION)
    if version != schema.FORMAT_VERSION:
        yield f"/metadata: expected format_version {schema.FORMAT_VERSION}, found {version}"
    for name in _REQUIRED_METADATA if "format_version" in metadata else ():
        if name not in metadata:
            yield f"/metadata: expected the attribute {name!r}, found none"
    for name, choices in {"boundary_x": BOUNDARIES, "boundary_y": BOUNDARIES, "grid_y": GRIDS}.items():
        if metadata.get(name, choices[0]) not in choices:
            yield f"/metadata: expected {name} to be one of {choices}, found {metadata[name]!r}"
