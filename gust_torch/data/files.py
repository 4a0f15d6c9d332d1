"""What a dataset must know of a file before it reads a frame: shapes, counts, times, trajectories."""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from gust_torch.spec import FieldSpec, canonical_name
from solvers.common.hdf5_utils import num_samples, open_file
from solvers.common.schema import plain_value

COMPONENTS = ("x", "y", "z")

PathLike = str | os.PathLike[str]


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
    """

    path: str
    channels: tuple[Channel, ...]
    spec: FieldSpec
    time: np.ndarray
    trajectory: np.ndarray

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
    """Matches of a URL with a glob pattern; the URL itself without one."""
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
        shapes = {name: tuple(dataset.shape) for name, dataset in file["fields"].items()}
        channels = select_channels(path, {name: shape[1:] for name, shape in shapes.items()}, fields)
        chosen = {channel.field: shapes[channel.field] for channel in channels}
        count = num_samples(file)
        _check_shapes(path, chosen, count, committed="coordinates/time" in file)
        coordinates = {axis: file[f"coordinates/{axis}"][:] for axis in "xy" if f"coordinates/{axis}" in file}
        attributes = file["metadata"].attrs if "metadata" in file else {}
        metadata = {name: plain_value(value) for name, value in attributes.items()}
        time = file["coordinates/time"][:count] if "coordinates/time" in file else np.full(count, np.nan)
        trajectory = np.zeros(count, np.int64)
        if "coordinates/trajectory" in file:
            trajectory[:] = file["coordinates/trajectory"][:count]
    try:
        spec = FieldSpec.from_metadata([channel.name for channel in channels], coordinates, metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    grid = next(iter(chosen.values()))[1:3]
    if spec.grid != grid:
        raise ValueError(
            f"{path}: the fields have the grid {grid}, the coordinates x, y the sizes {spec.grid}; "
            "correct the coordinates"
        )
    return SourceFile(path, channels, spec, time.astype(np.float64), trajectory)


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


def _check_shapes(path: str, shapes: Mapping[str, tuple[int, ...]], count: int, *, committed: bool) -> None:
    """One grid and, unless the times say how many frames are committed, one number of frames.

    Raises:
        ValueError: Ragged shapes, or fields shorter than the times.
    """
    grids = {name: shape[1:3] for name, shape in shapes.items()}
    if len(set(grids.values())) > 1:
        raise ValueError(f"{path}: the fields have different grids {grids}; choose fields of one grid")
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if not committed and len(set(lengths.values())) > 1:
        raise ValueError(
            f"{path}: the fields have different numbers of frames {lengths}; choose fields of one length, "
            "or write the file again"
        )
    if count == 0:
        raise ValueError(f"{path}: no frames yet; wait for the first one, or leave the file out")
