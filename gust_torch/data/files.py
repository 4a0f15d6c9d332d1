"""What a dataset must know of a file before it reads a frame: channels, counts, times, trajectories."""

import atexit
import dataclasses
import glob
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from gust_torch.data.readers import ChannelMap, Places
from gust_torch.data.samples import concatenate_trajectories
from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import open_error, open_hdf5
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, fill_values
from solvers.common.urls import redact

logger = logging.getLogger(__name__)

COMPONENTS = ("x", "y", "z")
# What the spec of a file is made from, beside its coordinates.
SPEC_METADATA = ("boundary_x", "boundary_y", "grid_y", "length_x", "length_y", "fkx", "fky")
# Where the JAX code has its parameters: attributes of /metadata.
METADATA_PARAMETERS = ("Re", "alpha", "beta", "rayleigh", "prandtl", "dT")
METADATA_STEPS = ("tSave", "dt")
MAX_TRAJECTORY = 10**8

PathLike = str | os.PathLike[str]
Stamp = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of an item.

    Attributes:
        name: Channel name, `vorticity` or `velocity_x`.
        field: Name of the field in the file.
        component: Index on the field's last axis; None for a scalar field.
    """

    name: str
    field: str
    component: int | None = None


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """Header of one file.

    Attributes:
        path: Path or URL.
        channels: The chosen channels, in the order of the dataset's.
        spec: The file's spec for these channels.
        time: (n,) float64; NaN where the file has no times.
        trajectory: (n,) int64; zeros where the file has none.
        parameters: Name -> (n_trajectories,) float64, indexed by trajectory; empty where the file has none.
        places: Field -> where its frames lie, of those that can be read without HDF5.
        fills: Field -> values that its attributes call missing, where there are any.
        stamp: What changes when somebody writes to the file; None for a URL.
        allow_external: Whether links to other files were followed.
    """

    path: str
    channels: tuple[Channel, ...]
    spec: FieldSpec
    time: np.ndarray
    trajectory: np.ndarray
    parameters: Mapping[str, np.ndarray]
    places: Mapping[str, Places]
    fills: Mapping[str, Sequence[float]]
    stamp: Stamp | None
    allow_external: bool

    @property
    def name(self) -> str:
        """The path as messages show it: without logins and queries."""
        return redact(self.path)

    @property
    def num_frames(self) -> int:
        """Committed frames."""
        return len(self.time)

    def channel_maps(self) -> dict[str, ChannelMap]:
        """Return which channels each field fills, and by which of its components."""
        maps: dict[str, ChannelMap] = {}
        for i, channel in enumerate(self.channels):
            maps.setdefault(channel.field, []).append((i, channel.component))
        return maps


def expand_paths(data_path: PathLike | Sequence[PathLike]) -> list[str]:
    """Paths and URLs that a path, a glob, or a list of them stands for; a glob's matches are sorted.

    Raises:
        ValueError: Nothing matches, a path is a folder, or two are the same file.
    """
    entries = [data_path] if isinstance(data_path, (str, os.PathLike)) else list(data_path)
    paths: list[str] = []
    for entry in entries:
        entry = os.fspath(entry)
        if is_url(entry):
            matches = _expand_url(entry)
        elif os.path.isdir(entry):
            raise ValueError(f"{entry} is a folder; name its files, for instance by the pattern {entry}/*.h5")
        elif glob.has_magic(entry) and not os.path.exists(entry):
            matches = sorted(glob.glob(entry, recursive=True))
        else:
            matches = [entry]
        if not matches:
            raise ValueError(f"no file matches {redact(entry)}; check the pattern")
        paths += matches
    if not paths:
        raise ValueError("data_path is an empty list; give one file or more")
    _check_distinct(paths)
    return paths


def _check_distinct(paths: Sequence[str]) -> None:
    """Refuse a file that is named twice, by another spelling or by a link too."""
    seen: dict[object, str] = {}
    for path in paths if len(paths) > 1 else ():
        try:
            status = None if is_url(path) else os.stat(path)
        except OSError:
            continue  # told when it is opened
        key = path if status is None else (status.st_dev, status.st_ino)
        if key in seen:
            raise ValueError(
                f"{redact(path)} is the same file as {redact(seen[key])}: its frames would count twice; "
                f"leave one out"
            )
        seen[key] = path


def is_url(path: str) -> bool:
    """Whether a path is a URL for fsspec (`s3://...`, `file://...`)."""
    return "://" in path


def _expand_url(url: str) -> list[str]:
    """Match of a URL with a glob pattern; the URL itself without one."""
    if not glob.has_magic(url.partition("?")[0]):
        return [url]
    import fsspec  # remote data only

    try:
        filesystem, pattern = fsspec.core.url_to_fs(url)
        return [filesystem.unstrip_protocol(match) for match in sorted(filesystem.glob(pattern))]
    except Exception as error:  # each kind of server has its own
        raise open_error(url, error) from error


# HDF5 closes what is open when the interpreter has gone already, and reads through python's file for that.
_remote: "weakref.WeakKeyDictionary[h5py.File, Any]" = weakref.WeakKeyDictionary()


@atexit.register
def close_remote_files() -> None:
    """Close all files that are read through fsspec."""
    for file, raw in list(_remote.items()):
        file.close()
        raw.close()


def open_source(path: str) -> h5py.File:
    """Open a local or remote file for reading.

    Raises:
        ValueError: The file is missing, truncated or cannot be opened; with the remedy.
    """
    if not is_url(path):
        return open_hdf5(path)
    try:
        import fsspec  # remote data only

        raw = fsspec.open(path, "rb").open()
        try:
            file = h5py.File(raw, "r")
        except BaseException:
            raw.close()
            raise
    except Exception as error:  # each kind of server has its own
        raise open_error(path, error) from error
    _remote[file] = raw
    return file


def file_stamp(file: int | str) -> Stamp:
    """Return what changes when somebody writes to a file, given by descriptor or path."""
    status = os.stat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_header(path: str, fields: str | Sequence[str] | None, *, allow_external: bool = False) -> SourceFile:
    """Read a file's header, times and trajectories; no frame is read, no other field looked at.

    Args:
        path: File or URL.
        fields: Names of fields or components; all by default.
        allow_external: Follow links and external storage to other files.

    Raises:
        ValueError: The file cannot be opened, lacks a field, its arrays do not fit together, or frames
            are not stored.
    """
    stamp = None if is_url(path) or not os.path.exists(path) else file_stamp(path)
    name = redact(path)
    try:
        with open_source(path) as file:
            contents = Contents(file, name, allow_external=allow_external)
            header = _read_contents(contents, fields)
    except (OSError, RuntimeError) as error:
        raise open_error(path, error) from error
    return SourceFile(path=path, stamp=stamp, allow_external=allow_external, **header)


def _read_contents(contents: Contents, fields: str | Sequence[str] | None) -> dict[str, Any]:
    """Values of a `SourceFile`."""
    name = contents.path
    channels = select_channels(contents, fields)
    chosen = {channel.field: _field(contents, channel.field) for channel in channels}
    grids = {field: dataset.shape[1:3] for field, dataset in chosen.items()}
    if len(set(grids.values())) > 1:
        raise ValueError(f"{name}: the fields have different grids {grids}; choose fields of one grid")
    grid = next(iter(grids.values()))
    count = contents.count(list(chosen))
    if count == 0:
        raise ValueError(f"{name}: no frames yet; wait for the first one, or leave the file out")
    for field, dataset in chosen.items():
        if problem := storage_problem(dataset, count, allow_external=contents.allow_external):
            raise ValueError(
                f"{name}: /{schema.FIELDS}/{field}: {problem}; write or copy the file again, or leave "
                f"the field out"
            )
    coordinates = {axis: _axis(contents, axis, size) for axis, size in zip(("x", "y"), grid, strict=True)}
    metadata = {key: value for key in SPEC_METADATA if (value := contents.metadata_value(key)) is not None}
    try:
        spec = FieldSpec.from_metadata([channel.name for channel in channels], coordinates, metadata)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    trajectory = _trajectory(contents, count)
    places = {field: Places.of(contents.file, dataset) for field, dataset in chosen.items()}
    # Components of vector fields are picked out of whole frames by h5py.
    scalars = {channel.field for channel in channels if channel.component is None}
    return {
        "channels": channels,
        "spec": spec,
        "time": _time(contents, count),
        "trajectory": trajectory,
        "parameters": _parameters(contents, int(trajectory.max()) + 1),
        "places": {field: place for field, place in places.items() if place is not None and field in scalars},
        "fills": {field: fills for field, dataset in chosen.items() if (fills := fill_values(dataset))},
    }


def select_channels(contents: Contents, fields: str | Sequence[str] | None) -> tuple[Channel, ...]:
    """Channels that field names stand for; all of the file, in its order, for None.

    A dataset that has two names (a link) is one channel.

    Args:
        contents: The file.
        fields: Names of fields (a vector field stands for its components) or of components (`velocity_x`).

    Raises:
        ValueError: A field or component is not in the file, or two fields stand for one channel.
    """
    available = contents.names(schema.FIELDS)
    if not available:
        raise ValueError(
            f"{contents.path}: expected a group /fields with at least one dataset, found none; convert "
            f"the file to "
            "the common format first"
        )
    wanted = available if fields is None else [fields] if isinstance(fields, str) else list(fields)
    found = [channel for field in wanted for channel in _channels_named(contents, field, available)]
    if not found:
        raise ValueError(f"{contents.path}: no field chosen; available: {', '.join(available)}")
    chosen: dict[str, Channel] = {}
    for channel in found:
        other = chosen.setdefault(channel.name, channel)
        if other.component != channel.component or not contents.is_same(
            f"{schema.FIELDS}/{other.field}", f"{schema.FIELDS}/{channel.field}"
        ):
            raise ValueError(
                f"{contents.path}: /fields/{other.field} and /fields/{channel.field} are different data "
                f"but both the "
                f"channel {channel.name}; choose one of them by `fields`"
            )
    return tuple(chosen.values())


def _channels_named(contents: Contents, wanted: str, available: Sequence[str]) -> list[Channel]:
    """Channels of the field or component that a name stands for: the name itself before its synonyms."""
    for field in available:
        if field == wanted:
            return _channels_of(contents, field)
    for field in available:
        if canonical_name(field) == canonical_name(wanted):
            return _channels_of(contents, field)
    for field in available:
        if wanted.startswith(f"{canonical_name(field)}_"):
            for channel in _channels_of(contents, field):
                if channel.name == wanted:
                    return [channel]
    raise ValueError(
        f"{contents.path}: no field {wanted!r}; available: {', '.join(_describe(contents, available))}"
    )


def _describe(contents: Contents, available: Sequence[str]) -> list[str]:
    """Names of fields and components that can be asked for."""
    names: dict[str, None] = {}
    for field in available:
        try:
            channels = _channels_of(contents, field)
        except ValueError:
            continue
        names |= dict.fromkeys([canonical_name(field), *(channel.name for channel in channels)])
    return list(names) or ["none"]


def _channels_of(contents: Contents, field: str) -> list[Channel]:
    """Channels of one field."""
    shape = _field(contents, field).shape[1:]
    name = canonical_name(field)
    if len(shape) == 2:
        return [Channel(name, field)]
    if shape[2] == 1:
        return [Channel(name, field, 0)]
    suffixes = COMPONENTS[: shape[2]] if shape[2] <= len(COMPONENTS) else map(str, range(shape[2]))
    return [Channel(f"{name}_{suffix}", field, i) for i, suffix in enumerate(suffixes)]


def _field(contents: Contents, name: str) -> h5py.Dataset:
    """Return the dataset of a field that is there."""
    dataset = contents.dataset(f"{schema.FIELDS}/{name}")
    assert dataset is not None
    return dataset


def _values(dataset: h5py.Dataset, count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """First values of a 1-D dataset: a third of the time of `dataset[:count]` where that is all of them."""
    if dataset.shape != (count,) or dataset.file.swmr_mode:
        return np.asarray(dataset[:count], dtype)
    out = np.empty(count, dtype)
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return out


def _stored(contents: Contents, name: str, count: int | None = None) -> h5py.Dataset | None:
    """Return a dataset of rows, all of them stored; None where there is none."""
    dataset = contents.dataset(name)
    if dataset is not None and (
        problem := storage_problem(dataset, count, allow_external=contents.allow_external)
    ):
        raise ValueError(f"{contents.path}: /{name}: {problem}; write or copy the file again")
    return dataset


def _axis(contents: Contents, axis: str, size: int) -> np.ndarray:
    """Positions along an axis of the fields."""
    name = f"{schema.COORDINATES}/{axis}"
    dataset = _stored(contents, name)
    if dataset is None:
        raise ValueError(f"{contents.path}: {name} is missing; write the grid points' positions there")
    if len(dataset) != size:
        raise ValueError(
            f"{contents.path}: {name} has {len(dataset)} entries, the fields have {size} along {axis}; "
            f"correct it"
        )
    values = _values(dataset, size, np.dtype(np.float64))
    if not np.isfinite(values).all():
        raise ValueError(f"{contents.path}: {name} holds NaN or infinite positions; correct it")
    return values


def _time(contents: Contents, count: int) -> np.ndarray:
    """Return the times (n,); of a file without, what its metadata say; else NaN."""
    dataset = _stored(contents, schema.TIME, count)
    if dataset is None:
        for name in METADATA_STEPS:
            step = _number(contents.metadata_value(name))
            if step is not None and step > 0:
                return step * np.arange(count)
        return np.full(count, np.nan)
    time = _values(dataset, count, schema.TIME_DTYPE)
    if not np.isfinite(time).all():
        bad = int(np.argmin(np.isfinite(time)))
        raise ValueError(f"{contents.path}: /{schema.TIME} is {time[bad]} at sample {bad}; correct it")
    return time


def _trajectory(contents: Contents, count: int) -> np.ndarray:
    """Trajectory ids (n,) int64; zeros where the file has none."""
    dataset = _stored(contents, schema.TRAJECTORY, count)
    if dataset is None:
        return np.zeros(count, np.int64)
    is_float = dataset.dtype.kind == "f"
    values = _values(dataset, count, np.dtype(np.float64 if is_float else np.int64))
    if is_float and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise ValueError(
            f"{contents.path}: /{schema.TRAJECTORY} holds ids that are not whole numbers; correct it"
        )
    if values.min() < 0 or values.max() > MAX_TRAJECTORY:
        raise ValueError(
            f"{contents.path}: /{schema.TRAJECTORY} holds ids from {values.min()} to {values.max()}; "
            f"number them from 0"
        )
    return values.astype(np.int64)


def _number(value: object) -> float | None:
    """Return a finite real number as float; None for all else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _parameters(contents: Contents, num_trajectories: int) -> dict[str, np.ndarray]:
    """Physical parameters, each (n_trajectories,) float64; from the metadata where there is no group
    of them.
    """
    parameters: dict[str, np.ndarray] = {}
    names = contents.names(schema.PARAMETERS)
    for name in names:
        try:
            dataset = _stored(contents, f"{schema.PARAMETERS}/{name}")
        except ValueError as error:
            logger.warning("%s; this parameter is left out", error)
            continue
        if dataset is not None:
            parameters[name] = np.atleast_1d(np.asarray(dataset[()], np.float64))
    for name in () if names else METADATA_PARAMETERS:
        if (value := _number(contents.metadata_value(name))) is not None:
            parameters[name] = np.full(num_trajectories, value)
    return parameters


def common_spec(sources: Sequence[SourceFile]) -> FieldSpec:
    """Return the spec that all files share; a forcing wavenumber that they don't share is None.

    Raises:
        ValueError: A file differs in channels, grid, boundaries or lengths.
    """
    first = sources[0].spec
    forcing = {source.spec.forcing_wavenumber for source in sources}
    for source in sources[1:]:
        if differences := first.differences(source.spec):
            raise ValueError(
                f"{source.name} does not fit {sources[0].name}: expected {'; '.join(differences)}; "
                "load them apart"
            )
    return dataclasses.replace(first, forcing_wavenumber=forcing.pop() if len(forcing) == 1 else None)


def common_parameters(sources: Sequence[SourceFile]) -> dict[str, np.ndarray]:
    """Parameters of all files, by name in the order of the first, indexed by the ids of
    `samples.concatenate_trajectories`; NaN at ids that no frame has.

    Raises:
        ValueError: The files have different parameters, or a trajectory has none.
    """
    names = tuple(sources[0].parameters)
    ids = concatenate_trajectories([source.trajectory for source in sources])
    merged = {name: np.full(int(ids.max()) + 1, np.nan) for name in names}
    start = 0
    for source in sources:
        if set(source.parameters) != set(names):
            raise ValueError(
                f"{source.name} has the parameters {sorted(source.parameters)}, {sources[0].name} has "
                f"{sorted(names)}; load them apart"
            )
        own, shifted = source.trajectory, ids[start : start + source.num_frames]
        start += source.num_frames
        for name, values in source.parameters.items():
            if values.ndim != 1 or int(own.max()) >= len(values):
                raise ValueError(
                    f"{source.name}: parameters/{name} has the shape {values.shape}, expected a value for "
                    f"each of the trajectories {int(own.min())} to {int(own.max())}; write the file again"
                )
            merged[name][shifted] = values[own]
    return merged
