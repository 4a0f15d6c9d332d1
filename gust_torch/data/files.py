"""What a dataset must know of a file before it reads a frame: channels, counts, times, trajectories."""

import dataclasses
import glob
import logging
import os
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from gust_torch.data.readers import Places, file_stamp, is_url, open_source
from gust_torch.data.samples import concatenate_trajectories
from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import open_error
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import Contents, fill_values
from solvers.common.urls import redact

logger = logging.getLogger(__name__)

# What the spec of a file is made from, beside its coordinates.
SPEC_METADATA = ("boundary_x", "boundary_y", "grid_y", "length_x", "length_y", "fkx", "fky")
# Where the JAX code has its parameters and times: attributes of /metadata.
METADATA_PARAMETERS = ("Re", "alpha", "beta", "rayleigh", "prandtl", "dT")
METADATA_STEPS = ("tSave", "dt")
MAX_TRAJECTORY = 10**8

PathLike = str | os.PathLike[str]
Stamp = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Channel:
    """Channel `name` of an item: `field` of the file; of a vector field the `component` on its last axis."""

    name: str
    field: str
    component: int | None = None


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """Header of one file, for the chosen channels.

    `time` (n,) is NaN and `trajectory` (n,) 0 where the file has none; `parameters` are indexed by
    trajectory. `places` are of the fields that can be read without HDF5, `fills` the values that a field's
    attributes call missing. `stamp` changes when somebody writes to the file; a URL has none.
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

    def read_again(self) -> "SourceFile":
        """Return the header of a file that was written to since: frames may lie elsewhere."""
        fields = list(dict.fromkeys(channel.field for channel in self.channels))
        fresh = read_header(self.path, fields, allow_external=self.allow_external)
        if fresh.num_frames < self.num_frames or fresh.spec.grid != self.spec.grid:
            raise ValueError(f"{self.name} has changed since it was opened; open the dataset again")
        return dataclasses.replace(fresh, channels=self.channels)


def expand_paths(data_path: PathLike | Sequence[PathLike]) -> list[str]:
    """Distinct paths and URLs that a path, a glob (sorted), or a list of them stands for."""
    paths: list[str] = []
    for given in [data_path] if isinstance(data_path, (str, os.PathLike)) else data_path:
        entry = os.fspath(given)
        if os.path.isdir(entry):
            raise ValueError(f"{entry} is a folder; name its files, for instance by the pattern {entry}/*.h5")
        is_pattern = glob.has_magic(entry.partition("?")[0] if is_url(entry) else entry)
        matches = _matches(entry) if is_pattern and not os.path.exists(entry) else [entry]
        if not matches:
            raise ValueError(f"no file matches {redact(entry)}; check the pattern")
        paths += matches
    if not paths:
        raise ValueError("data_path is an empty list; give one file or more")
    seen: dict[object, str] = {}
    for path in paths:
        # Links and other spellings of a file have its device and inode.
        key = path if is_url(path) or not os.path.exists(path) else file_stamp(path)[:2]
        if key in seen:
            raise ValueError(f"{redact(path)} is the same file as {redact(seen[key])}; leave one out")
        seen[key] = path
    return paths


def _matches(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    import fsspec  # remote data only

    try:
        filesystem, path = fsspec.core.url_to_fs(pattern)
        return [filesystem.unstrip_protocol(match) for match in sorted(filesystem.glob(path))]
    except Exception as error:  # each kind of server has its own
        raise open_error(pattern, error) from error


def read_header(path: str, fields: str | Sequence[str] | None, *, allow_external: bool = False) -> SourceFile:
    """Read a file's header, times and trajectories; no frame is read, no other field looked at."""
    stamp = None if is_url(path) or not os.path.exists(path) else file_stamp(path)
    try:
        with open_source(path) as file:
            contents = Contents(file, redact(path), allow_external=allow_external)
            return _read_contents(contents, select_channels(contents, fields), path, stamp)
    except (OSError, RuntimeError) as error:
        raise open_error(path, error) from error


def _read_contents(
    contents: Contents, channels: tuple[Channel, ...], path: str, stamp: Stamp | None
) -> SourceFile:
    name = contents.path
    chosen = {channel.field: _field(contents, channel.field) for channel in channels}
    grids = {field: dataset.shape[1:3] for field, dataset in chosen.items()}
    if len(set(grids.values())) > 1:
        raise ValueError(f"{name}: the fields have different grids {grids}; choose fields of one grid")
    count = contents.count(list(chosen))
    if count == 0:
        raise ValueError(f"{name}: no frames yet; wait for the first one, or leave the file out")
    for field in chosen:
        _stored(contents, f"{schema.FIELDS}/{field}", count)
    coordinates = {}
    for axis, size in zip(("x", "y"), next(iter(grids.values())), strict=True):
        values = _numbers(contents, f"{schema.COORDINATES}/{axis}", None)
        if values is None or len(values) != size:
            found = "is missing" if values is None else f"has {len(values)} entries"
            raise ValueError(f"{name}: coordinates/{axis} {found}, the fields have {size}; correct it")
        coordinates[axis] = values
    metadata = {key: value for key in SPEC_METADATA if (value := contents.metadata_value(key)) is not None}
    try:
        spec = FieldSpec.from_metadata([channel.name for channel in channels], coordinates, metadata)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    time = _numbers(contents, schema.TIME, count)
    if time is None:
        steps = [step for key in METADATA_STEPS if (step := _number(contents.metadata_value(key))) > 0]
        time = (steps or [np.nan])[0] * np.arange(count)
    ids = _numbers(contents, schema.TRAJECTORY, count)
    ids = np.zeros(count) if ids is None else ids
    if (ids != np.floor(ids)).any() or ids.min() < 0 or ids.max() > MAX_TRAJECTORY:
        raise ValueError(
            f"{name}: /{schema.TRAJECTORY}: {ids.min():g} to {ids.max():g}; use whole numbers from 0"
        )
    # Components of vector fields are picked out of whole frames by h5py.
    scalars = {channel.field for channel in channels if channel.component is None}
    return SourceFile(
        path=path,
        channels=channels,
        spec=spec,
        time=time,
        trajectory=ids.astype(np.int64),
        parameters=_parameters(contents, int(ids.max()) + 1),
        places={
            field: places
            for field, dataset in chosen.items()
            if field in scalars and (places := Places.of(contents.file, dataset))
        },
        fills={field: fills for field, dataset in chosen.items() if (fills := fill_values(dataset))},
        stamp=stamp,
        allow_external=contents.allow_external,
    )


def select_channels(contents: Contents, fields: str | Sequence[str] | None) -> tuple[Channel, ...]:
    """Channels that names of fields or components stand for; all of the file, in its order, for None.

    A dataset that has two names (a link) is one channel.
    """
    available = contents.names(schema.FIELDS)
    names = available if fields is None else [fields] if isinstance(fields, str) else fields
    chosen: dict[str, Channel] = {}
    for channel in (channel for name in names for channel in _channels_named(contents, name, available)):
        other = chosen.setdefault(channel.name, channel)
        paths = [f"{schema.FIELDS}/{one.field}" for one in (other, channel)]
        if other.component != channel.component or not contents.is_same(*paths):
            both = " and /".join(paths)
            raise ValueError(f"{contents.path}: /{both} are different data; choose one by `fields`")
    if not chosen:
        raise ValueError(f"{contents.path}: /fields: none chosen of {available}; choose some, or convert it")
    return tuple(chosen.values())


def _channels_named(contents: Contents, wanted: str, available: Sequence[str]) -> list[Channel]:
    """Channels of the field or component that a name stands for: the name itself before its synonyms."""
    same = [field for field in available if canonical_name(field) == canonical_name(wanted)]
    if same:
        return _channels_of(contents, wanted if wanted in same else same[0])
    vectors = [field for field in available if wanted.startswith(f"{canonical_name(field)}_")]
    for channel in (channel for field in vectors for channel in _channels_of(contents, field)):
        if channel.name == wanted:
            return [channel]
    found = ", ".join(available) or "none, so convert the file to the common format"
    raise ValueError(f"{contents.path}: no field {wanted!r}; available: {found}")


def _channels_of(contents: Contents, field: str) -> list[Channel]:
    """Channels of one field: one, or its components."""
    shape, name = _field(contents, field).shape[1:], canonical_name(field)
    if len(shape) == 2 or shape[2] == 1:
        return [Channel(name, field, None if len(shape) == 2 else 0)]
    suffixes = "xyz"[: shape[2]] if shape[2] <= 3 else map(str, range(shape[2]))
    return [Channel(f"{name}_{suffix}", field, i) for i, suffix in enumerate(suffixes)]


def _field(contents: Contents, name: str) -> h5py.Dataset:
    """Return the dataset of a field that is there."""
    dataset = contents.dataset(f"{schema.FIELDS}/{name}")
    assert dataset is not None
    return dataset


def _stored(contents: Contents, name: str, count: int | None) -> h5py.Dataset | None:
    """Return a dataset, its first rows (or all) stored; None where there is none."""
    dataset = contents.dataset(name)
    allowed = contents.allow_external
    if dataset is not None and (problem := storage_problem(dataset, count, allow_external=allowed)):
        raise ValueError(f"{contents.path}: /{name}: {problem}; copy the file again, or leave it out")
    return dataset


def _numbers(contents: Contents, name: str, count: int | None) -> np.ndarray | None:
    """First values (or all) of a 1-D dataset, finite float64; None where there is none."""
    dataset = _stored(contents, name, count)
    if dataset is None:
        return None
    if dataset.file.swmr_mode or (count is not None and dataset.shape != (count,)):
        values = np.asarray(dataset[:count], np.float64)
    else:  # a third of the time of `dataset[:]`
        values = np.empty(dataset.shape)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"{contents.path}: /{name} is {values[bad]} at sample {bad}; correct it")
    return values


def _number(value: object) -> float:
    """Return a finite real number as float; NaN for all else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if is_number else np.nan  # type: ignore[arg-type]


def _parameters(contents: Contents, num_trajectories: int) -> dict[str, np.ndarray]:
    """Physical parameters, each (n_trajectories,) float64; where there is no group, those of the metadata."""
    parameters: dict[str, np.ndarray] = {}
    names = contents.names(schema.PARAMETERS)
    for name in names:
        try:
            dataset = _stored(contents, f"{schema.PARAMETERS}/{name}", None)
        except ValueError as error:
            logger.warning("%s; this parameter is left out", error)
            continue
        if dataset is not None:
            parameters[name] = np.atleast_1d(np.asarray(dataset[()], np.float64))
    for name in () if names else METADATA_PARAMETERS:
        if np.isfinite(value := _number(contents.metadata_value(name))):
            parameters[name] = np.full(num_trajectories, value)
    return parameters


def common_spec(sources: Sequence[SourceFile]) -> FieldSpec:
    """Return the spec that all files must share; a forcing wavenumber that they don't share is None."""
    first = sources[0].spec
    for source in sources[1:]:
        if changed := first.differences(source.spec):
            text = f"{source.name} does not fit {sources[0].name}: expected {'; '.join(changed)}"
            raise ValueError(f"{text}; load them apart")
    forcing = {source.spec.forcing_wavenumber for source in sources}
    return dataclasses.replace(first, forcing_wavenumber=forcing.pop() if len(forcing) == 1 else None)


def common_parameters(sources: Sequence[SourceFile]) -> dict[str, np.ndarray]:
    """Parameters of all files, by the ids of `concatenate_trajectories`; NaN at ids without frames."""
    names = sources[0].parameters.keys()
    ids = concatenate_trajectories([source.trajectory for source in sources])
    merged = {name: np.full(int(ids.max()) + 1, np.nan) for name in names}
    start = 0
    for source in sources:
        if source.parameters.keys() != names:
            text = f"{source.name} has the parameters {sorted(source.parameters)}, {sources[0].name}"
            raise ValueError(f"{text} has {sorted(names)}; load them apart")
        own, shifted = source.trajectory, ids[start : start + source.num_frames]
        start += source.num_frames
        for name, values in source.parameters.items():
            if own.max() >= len(values):
                text = f"parameters/{name} has {len(values)} values, the largest trajectory is {own.max()}"
                raise ValueError(f"{source.name}: {text}; write the file again")
            merged[name][shifted] = values[own]
    return merged
