"""Checks a file against the common HDF5 format and lists every violation at once."""

import os
from collections.abc import Iterator

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.axes import BOUNDARIES, GRIDS, domain
from solvers.common.hdf5.reader import is_complete, num_times, open_file
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, form_problems, rule_of


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
        found = _Found(contents)
        if not found.datasets or any(
            "/metadata: expected a group, found a" in text for text in found.problems
        ):
            return found.problems
        try:
            return [*found.problems, *_check(contents, found.datasets)]
        except (OSError, RuntimeError) as error:
            return [*found.problems, f"{path}: HDF5 cannot read it ({error}); copy or write it again"]


class _Found:
    """The datasets of a file that can be looked at, by full name, and what is wrong with all others."""

    def __init__(self, contents: Contents) -> None:
        self.problems: list[str] = []
        self.datasets: dict[str, h5py.Dataset] = {}
        self._prefix = f"{contents.path}: "
        for group in (schema.FIELDS, schema.COORDINATES, schema.PARAMETERS, schema.SCALARS, schema.METADATA):
            self._look(contents, group)

    def _look(self, contents: Contents, group: str) -> None:
        """Look at a group and what is in it."""
        required = {schema.FIELDS: [], schema.COORDINATES: ["x", "y"], schema.METADATA: []}
        try:
            if contents.group(group) is None:
                if group in required:
                    self.problems.append(f"/{group}: expected a group, found none")
                return
        except ValueError as error:
            self.problems.append(str(error).removeprefix(self._prefix))
            return
        if group == schema.METADATA:
            return
        names = contents.names(group)
        if group == schema.COORDINATES:
            names = [*required[group], *(name for name in ("time", "trajectory") if name in names)]
        if group == schema.FIELDS and not names:
            self.problems.append("/fields: expected at least one dataset, found none")
        for name in names:
            full = f"{group}/{name}"
            try:
                dataset = contents.dataset(full)
            except ValueError as error:
                self.problems.append(str(error).removeprefix(self._prefix))
                continue
            if dataset is None:
                self.problems.append(f"/{full}: expected a dataset, found none")
                continue
            self.datasets[full] = dataset
            self.problems += form_problems(full, dataset, rule_of(full))


def _check(contents: Contents, datasets: dict[str, h5py.Dataset]) -> Iterator[str]:
    """Yield what is wrong between datasets, and in their values."""
    committed = _committed(contents.file, datasets)
    growing = not is_complete(contents.file)
    yield from _check_lengths(datasets, committed, growing=growing)
    for name, dataset in datasets.items():
        grows = name.startswith((f"{schema.FIELDS}/", f"{schema.SCALARS}/"))
        count = committed if growing and grows else None
        if problem := storage_problem(dataset, count, allow_external=contents.allow_external):
            yield f"/{name}: {problem}"
            return  # what is not there cannot be read
    axes_problems = list(_check_axes(datasets))
    yield from axes_problems
    yield from _check_trajectories(datasets, committed)
    metadata_problems = list(_check_metadata(contents))
    yield from metadata_problems
    if schema.X in datasets and schema.Y in datasets and not axes_problems and not metadata_problems:
        yield from _check_domain(contents, datasets)


def _check_lengths(
    datasets: dict[str, h5py.Dataset], committed: int | None, *, growing: bool
) -> Iterator[str]:
    """One grid, and one number of samples, of which `committed` have a time."""
    fields = {name: item for name, item in datasets.items() if name.startswith(f"{schema.FIELDS}/")}
    grids = {item.shape[1:3] for item in fields.values()}
    if len(grids) > 1:
        yield f"/fields: expected one grid for all fields, found {sorted(grids)}"
    for axis, name in enumerate((schema.X, schema.Y)):
        if name in datasets and len(grids) == 1 and len(datasets[name]) != (size := next(iter(grids))[axis]):
            yield (
                f"/{name}: expected {size} entries as the fields' axis {axis + 1}, found "
                f"{len(datasets[name])}"
            )
    lengths = {
        name: item.shape[0]
        for name, item in datasets.items()
        if name in fields or name.startswith(f"{schema.SCALARS}/") or name == schema.TRAJECTORY
    }
    expected = max(lengths.values(), default=0) if committed is None else committed
    for name, length in lengths.items():
        # Until a file is complete its last sample may lack its time, which is committed last, but
        # nothing else.
        if length < expected or (length > expected and not growing):
            yield f"/{name}: expected {expected} samples, found {length}"


def _check_axes(datasets: dict[str, h5py.Dataset]) -> Iterator[str]:
    """x and y: finite and increasing."""
    for name in (schema.X, schema.Y):
        values = datasets[name][:] if name in datasets else np.zeros(0)
        if not np.isfinite(values).all():
            yield f"/{name}: expected finite coordinates, found {_not_finite(values)} NaN or infinite"
        elif (np.diff(values) <= 0).any():
            yield f"/{name}: expected strictly increasing coordinates"


def _check_domain(contents: Contents, datasets: dict[str, h5py.Dataset]) -> Iterator[str]:
    """Coordinates that are those of the grid, and lengths that they allow."""
    coordinates = {axis: datasets[f"{schema.COORDINATES}/{axis}"][:] for axis in ("x", "y")}
    if min(len(values) for values in coordinates.values()) > 1:
        try:
            domain(coordinates, contents.metadata)
        except ValueError as error:
            yield str(error)


def _check_trajectories(datasets: dict[str, h5py.Dataset], committed: int | None) -> Iterator[str]:
    """Yield times increase within each trajectory, ids are in the range of /parameters."""
    parameters = {name: item for name, item in datasets.items() if name.startswith(f"{schema.PARAMETERS}/")}
    counts = {f"/{name}": item.shape[0] for name, item in parameters.items() if item.ndim == 1}
    if len(set(counts.values())) > 1:
        yield f"/{schema.PARAMETERS}: expected equal lengths, found {counts}"
    time, trajectory = (
        datasets[name][:committed] if name in datasets else None for name in (schema.TIME, schema.TRAJECTORY)
    )
    if trajectory is not None and len(trajectory):
        limit = max(counts.values(), default=np.iinfo(np.int64).max)
        if not np.isfinite(trajectory).all() or (trajectory != np.floor(trajectory)).any():
            yield (
                f"/{schema.TRAJECTORY}: expected whole numbers, found {trajectory.dtype} values that are none"
            )
            return
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


def _committed(file: h5py.File, datasets: dict[str, h5py.Dataset]) -> int | None:
    """Length of the time, None where there is none; refreshes all lengths of a file that is being written.

    The time is looked at first and committed last, so nothing looked at later is shorter than it.
    """
    if schema.TIME not in datasets:
        return None
    if not file.swmr_mode:
        return num_times(file)
    datasets[schema.TIME].refresh()
    committed = num_times(file)
    for name, dataset in datasets.items():
        if name.startswith((f"{schema.FIELDS}/", f"{schema.SCALARS}/")) or name == schema.TRAJECTORY:
            dataset.refresh()
    return committed


def _not_finite(values: np.ndarray) -> int:
    """Return the number of NaN and infinite entries."""
    return int((~np.isfinite(values)).sum())


def _check_metadata(contents: Contents) -> Iterator[str]:
    """Yield the required attributes (only where a format version claims them) and known values."""
    metadata = contents.metadata
    version = metadata.get("format_version")
    if version is not None:
        if version != schema.FORMAT_VERSION:
            yield f"/metadata: expected format_version {schema.FORMAT_VERSION}, found {version}"
        for name in schema.REQUIRED_METADATA:
            if name not in metadata:
                yield f"/metadata: expected the attribute {name!r}, found none"
    allowed = {"boundary_x": BOUNDARIES, "boundary_y": BOUNDARIES, "grid_y": GRIDS}
    for name, choices in allowed.items():
        if name in metadata and metadata[name] not in choices:
            yield f"/metadata: expected {name} to be one of {choices}, found {metadata[name]!r}"
