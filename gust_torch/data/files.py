"""What a dataset must know of a file before it reads a frame: shapes, counts, times, trajectories."""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from gust_torch.data.channels import Channel, select_channels
from gust_torch.spec import FieldSpec
from solvers.common.hdf5_utils import open_file
from solvers.common.schema import plain_value

# Lengths come from float32 coordinates.
LENGTH_TOLERANCE = 1e-4

PathLike = str | os.PathLike[str]


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
        # First the times: in a file that is being written they are committed last, so the fields are at least
        # as long.
        time = file["coordinates/time"][:] if "coordinates/time" in file else None
        shapes = {name: tuple(dataset.shape) for name, dataset in file["fields"].items()}
        channels = select_channels(path, {name: shape[1:] for name, shape in shapes.items()}, fields)
        chosen = {channel.field: shapes[channel.field] for channel in channels}
        count = _count_frames(path, chosen, None if time is None else len(time))
        coordinates = {axis: file[f"coordinates/{axis}"][:] for axis in "xy" if f"coordinates/{axis}" in file}
        attributes = file["metadata"].attrs if "metadata" in file else {}
        metadata = {name: plain_value(value) for name, value in attributes.items()}
        trajectory = np.zeros(count, np.int64)
        if "coordinates/trajectory" in file:
            ids = file["coordinates/trajectory"]
            if len(ids) < count:
                raise ValueError(
                    f"{path}: {len(ids)} trajectory ids for {count} frames; write the file again"
                )
            trajectory[:] = ids[:count]
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
    times = np.full(count, np.nan) if time is None else time.astype(np.float64)
    return SourceFile(path, channels, spec, times, trajectory)


def _count_frames(path: str, shapes: Mapping[str, tuple[int, ...]], num_times: int | None) -> int:
    """Frames that all chosen fields have; as many as there are times, where the file has times.

    Raises:
        ValueError: Ragged shapes, or no frame at all.
    """
    grids = {name: shape[1:3] for name, shape in shapes.items()}
    if len(set(grids.values())) > 1:
        raise ValueError(f"{path}: the fields have different grids {grids}; choose fields of one grid")
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if (num_times is None and len(set(lengths.values())) > 1) or min(lengths.values()) < (num_times or 0):
        times = "" if num_times is None else f" and {num_times} times"
        raise ValueError(
            f"{path}: the fields have different numbers of frames, {lengths}{times}; choose fields of one "
            "length, or write the file again"
        )
    count = min(lengths.values()) if num_times is None else num_times
    if count == 0:
        raise ValueError(f"{path}: no frames yet; wait for the first one, or leave the file out")
    return count


def common_spec(sources: Sequence[SourceFile]) -> FieldSpec:
    """The spec that all files share; a forcing wavenumber that they don't share is None.

    Raises:
        ValueError: A file differs in channels, grid, boundaries or lengths.
    """
    first = sources[0].spec
    forcing = {source.spec.forcing_wavenumber for source in sources}
    for source in sources[1:]:
        same_lengths = np.allclose(source.spec.lengths, first.lengths, rtol=LENGTH_TOLERANCE)
        aligned = dataclasses.replace(
            source.spec, lengths=first.lengths, forcing_wavenumber=first.forcing_wavenumber
        )
        if aligned != first or not same_lengths:
            raise ValueError(
                f"{source.path} does not fit {sources[0].path}: expected {first}, got {source.spec}; "
                "load them apart"
            )
    return dataclasses.replace(first, forcing_wavenumber=forcing.pop() if len(forcing) == 1 else None)
