"""What a dataset must know of a file before it reads a frame: channels, counts, times, trajectories."""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from gust_torch.data.samples import concatenate_trajectories
from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.hdf5.schema import plain_value
from solvers.common.hdf5_utils import open_file

PathLike = str | os.PathLike[str]
COMPONENTS = ("x", "y", "z")


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of an item.

    Attributes:
        name: Channel name, ``vorticity`` or ``velocity_x``.
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
    """

    path: str
    channels: tuple[Channel, ...]
    spec: FieldSpec
    time: np.ndarray
    trajectory: np.ndarray
    parameters: Mapping[str, np.ndarray]

    @property
    def num_frames(self) -> int:
        """Committed frames."""
        return len(self.time)


def expand_paths(data_path: PathLike | Sequence[PathLike]) -> list[str]:
    """Paths and URLs that a path, a glob, or a list of them stands for; a glob's matches are sorted.

    Raises:
        ValueError: Nothing matches, or a path is a folder.
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
            raise ValueError(f"no file matches {entry}; check the pattern")
        paths += matches
    if not paths:
        raise ValueError("data_path is an empty list; give one file or more")
    return paths


def is_url(path: str) -> bool:
    """Whether a path is a URL for fsspec (``s3://...``, ``file://...``)."""
    return "://" in path


def _expand_url(url: str) -> list[str]:
    """Match of a URL with a glob pattern; the URL itself without one."""
    if not glob.has_magic(url):
        return [url]
    import fsspec  # remote data only

    filesystem, pattern = fsspec.core.url_to_fs(url)
    return [filesystem.unstrip_protocol(match) for match in sorted(filesystem.glob(pattern))]


def open_source(path: str) -> h5py.File:
    """Open a local or remote file for reading.

    Raises:
        ValueError: The file is missing, truncated or not of the common format; with the remedy.
    """
    if not is_url(path):
        return open_file(path)
    import fsspec  # remote data only

    try:
        file = h5py.File(fsspec.open(path, "rb").open(), "r")
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened ({error}); check the URL or download it") from error
    if "fields" not in file:
        file.close()
        raise ValueError(f"{path}: expected a group /fields; convert the file to the common format first")
    return file


def read_header(path: str, fields: str | Sequence[str] | None) -> SourceFile:
    """Read a file's header, times and trajectories; no frame is read.

    Raises:
        ValueError: The file cannot be opened, lacks a field, or its arrays do not fit together.
    """
    with open_source(path) as file:
        attributes = file["metadata"].attrs if "metadata" in file else {}
        metadata = {name: plain_value(value) for name, value in attributes.items()}
        shapes = {name: tuple(dataset.shape) for name, dataset in file["fields"].items()}
        channels = select_channels(path, {name: shape[1:] for name, shape in shapes.items()}, fields)
        chosen = {channel.field: shapes[channel.field] for channel in channels}
        grid = _common_grid(path, chosen)
        arrays = dict(file["coordinates"].items()) if "coordinates" in file else {}
        lengths = {field: shape[0] for field, shape in chosen.items()}
        lengths |= {name: len(arrays[name]) for name in ("time", "trajectory") if name in arrays}
        count = _count_frames(path, lengths, growing=metadata.get("complete") is False)
        coordinates = {axis: arrays[axis][:] for axis in ("x", "y") if axis in arrays}
        time = arrays["time"][:count] if "time" in arrays else np.full(count, np.nan)
        trajectory = arrays["trajectory"][:count] if "trajectory" in arrays else np.zeros(count)
        parameters = {
            name: np.atleast_1d(np.asarray(values[()], np.float64))
            for name, values in file.get("parameters", {}).items()
        }
    try:
        spec = FieldSpec.from_metadata([channel.name for channel in channels], coordinates, metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if spec.grid != grid:
        raise ValueError(
            f"{path}: the fields have the grid {grid}, the coordinates x, y the sizes {spec.grid}; "
            "correct the coordinates"
        )
    return SourceFile(path, channels, spec, time.astype(np.float64), trajectory.astype(np.int64), parameters)


def _common_grid(path: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the grid (H, W) of all chosen fields.

    Raises:
        ValueError: They have different ones.
    """
    grids = {name: shape[1:3] for name, shape in shapes.items()}
    if len(set(grids.values())) > 1:
        raise ValueError(f"{path}: the fields have different grids {grids}; choose fields of one grid")
    return next(iter(grids.values()))


def _count_frames(path: str, lengths: Mapping[str, int], *, growing: bool) -> int:
    """Frames that are complete: as many as the shortest array along samples has.

    Args:
        path: The file, for messages.
        lengths: Of the chosen fields, of ``time`` and ``trajectory`` where they exist.
        growing: The file is being written, or its writer was killed. Fields may then be longer than the
            times, which are committed last, and since arrays are looked at one after the other, shorter too.

    Raises:
        ValueError: Ragged lengths in a file that is not growing, or no frame at all.
    """
    count = min(lengths.values())
    expected = lengths["time"] if "time" in lengths else max(lengths.values())
    if count < expected and not growing:
        raise ValueError(
            f"{path}: different numbers of frames, {dict(lengths)}; choose fields of one length, or write "
            "the file again"
        )
    if count == 0:
        raise ValueError(f"{path}: no frames yet; wait for the first one, or leave the file out")
    return count


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
                f"{source.path} does not fit {sources[0].path}: expected {'; '.join(differences)}; "
                "load them apart"
            )
    return dataclasses.replace(first, forcing_wavenumber=forcing.pop() if len(forcing) == 1 else None)


def common_parameters(sources: Sequence[SourceFile]) -> dict[str, np.ndarray]:
    """Parameters of all files, by name in the order of the first, indexed by the ids of
    `windows.concatenate_trajectories`; NaN at ids that no frame has.

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
                f"{source.path} has the parameters {sorted(source.parameters)}, {sources[0].path} has "
                f"{sorted(names)}; load them apart"
            )
        own, shifted = source.trajectory, ids[start : start + source.num_frames]
        start += source.num_frames
        for name, values in source.parameters.items():
            if values.ndim != 1 or int(own.min()) < 0 or int(own.max()) >= len(values):
                raise ValueError(
                    f"{source.path}: parameters/{name} has the shape {values.shape}, expected a value for "
                    f"each of the trajectories {int(own.min())} to {int(own.max())}; write the file again"
                )
            merged[name][shifted] = values[own]
    return merged


def select_channels(
    path: str, frame_shapes: Mapping[str, tuple[int, ...]], fields: str | Sequence[str] | None
) -> tuple[Channel, ...]:
    """Channels that field names stand for; all of the file, in its order, for None.

    Args:
        path: The file, for messages.
        frame_shapes: Field name -> (H, W) or (H, W, C), in the order of the file.
        fields: Names of fields (a vector field stands for its components) or of components (``velocity_x``).

    Raises:
        ValueError: A field or component is not in the file.
    """
    groups = {name: _channels_of(path, name, shape) for name, shape in frame_shapes.items()}
    if fields is None:
        return tuple(channel for group in groups.values() for channel in group)
    by_name = {canonical_name(name): list(group) for name, group in groups.items()}
    by_name |= {channel.name: [channel] for group in groups.values() for channel in group}
    chosen: list[Channel] = []
    for name in [fields] if isinstance(fields, str) else fields:
        if canonical_name(name) not in by_name:
            raise ValueError(f"{path}: no field {name!r}; available: {', '.join(by_name) or 'none'}")
        chosen += by_name[canonical_name(name)]
    if not chosen:
        raise ValueError(f"{path}: no field chosen; available: {', '.join(by_name) or 'none'}")
    return tuple(chosen)


def _channels_of(path: str, field: str, shape: tuple[int, ...]) -> list[Channel]:
    """Channels of one field."""
    name = canonical_name(field)
    if len(shape) == 2:
        return [Channel(name, field)]
    if len(shape) != 3:
        raise ValueError(
            f"{path}: field {field!r} has frames of shape {shape}; expected (H, W) or (H, W, components)"
        )
    suffixes = COMPONENTS[: shape[2]] if shape[2] <= len(COMPONENTS) else map(str, range(shape[2]))
    return [Channel(f"{name}_{suffix}", field, i) for i, suffix in enumerate(suffixes)]
