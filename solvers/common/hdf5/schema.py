"""Names, types and chunk shapes of the common HDF5 format (version 1).

/fields/{name}           (n_samples, H, W[, C]) float32   axis 1 is x, axis 2 is y (z in convection)
/coordinates/x           (H,) float32
/coordinates/y           (W,) float32
/coordinates/time        (n_samples,) float64             committed last: its length counts the samples
/coordinates/trajectory  (n_samples,) int32
/parameters/{name}       (n_trajectories,) float64
/scalars/{name}          (n_samples,) float64
/metadata                attributes only
"""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FORMAT_VERSION = 1

FIELDS = "fields"
COORDINATES = "coordinates"
PARAMETERS = "parameters"
SCALARS = "scalars"
METADATA = "metadata"
X, Y = f"{COORDINATES}/x", f"{COORDINATES}/y"
TIME, TRAJECTORY = f"{COORDINATES}/time", f"{COORDINATES}/trajectory"

FIELD_DTYPE = np.dtype("<f4")
TIME_DTYPE = np.dtype("<f8")
TRAJECTORY_DTYPE = np.dtype("<i4")

ROW_CHUNK = 512
COMPRESSIONS = ("lz4", "gzip")
_FILTER_NAMES = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SHUFFLE: "shuffle", 32008: "lz4"}

MetadataValue = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class HDF5Info:
    """What a file holds, without its frames.

    Attributes:
        path: The file.
        num_samples: Frames that are complete in every dataset.
        fields: name -> (shape of one frame: (H, W) or (H, W, C), dtype).
        coordinates: name -> array, x and y (not time and trajectory, which grow with the file).
        parameters: name -> (n_trajectories,) float64.
        scalars: Names of the per-sample diagnostics.
        metadata: Attributes of /metadata as python values.
        num_trajectories: Number of distinct trajectories (1 where the file does not say).
    """

    path: Path
    num_samples: int
    fields: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    coordinates: Mapping[str, np.ndarray]
    parameters: Mapping[str, np.ndarray]
    scalars: tuple[str, ...]
    metadata: Mapping[str, MetadataValue]
    num_trajectories: int


def plain_value(value: Any) -> MetadataValue:
    """Attribute value as h5py returns it -> python str, bool, int or float."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item() if value.size == 1 else str(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, (str, bool, int, float)) else str(value)


def frames_per_chunk(frame_bytes: int) -> int:
    """Frames that share one chunk: 1 for frames of 16 KiB or more, else as many as fit in 64 KiB.

    A frame that is its own chunk is read at random and written by one call. Of tiny frames (1-D data) each
    chunk's index entry and system call outweigh its bytes: at 4 KiB grouped blocks are read 3 times and
    written 1.8 times faster, random frames read equally fast; at 16 KiB only blocks gain, by a fifth.
    """
    return 1 if frame_bytes >= 16 << 10 else (64 << 10) // max(1, frame_bytes)


def create_field(
    group: h5py.Group, name: str, frame: tuple[int, ...], *, count: int, chunk: int, compression: str | None
) -> h5py.Dataset:
    """Create a dataset of `count` frames that can grow, `chunk` of them in a chunk.

    Compression is None, "lz4" (bitshuffle + lz4) or "gzip".
    """
    options: dict[str, Any] = {}
    if compression == "gzip":
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    elif compression:
        import hdf5plugin  # deferred: most files are uncompressed and need no plugin

        options = dict(hdf5plugin.Bitshuffle(cname="lz4"))
    return group.create_dataset(
        name,
        shape=(count, *frame),
        maxshape=(None, *frame),
        chunks=(chunk, *frame),
        dtype=FIELD_DTYPE,
        **options,
    )


def create_rows(group: h5py.Group, name: str, values: np.ndarray, fill: float = 0) -> h5py.Dataset:
    """Create a 1-D dataset that grows by an entry a sample; `fill` is what dropped entries become."""
    return group.create_dataset(name, data=values, maxshape=(None,), chunks=(ROW_CHUNK,), fillvalue=fill)


def _filters(dataset: h5py.Dataset) -> Iterator[int]:
    """Yield the numbers of the filters (compression, shuffle, checksum) that each chunk passes through."""
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        yield int(properties.get_filter(index)[0])


def filter_names(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Name the filters that each chunk of a dataset passes through; () for plain chunks."""
    return tuple(_FILTER_NAMES.get(code, f"filter {code}") for code in _filters(dataset))


def missing_filter(dataset: h5py.Dataset) -> int | None:
    """Load the plugins that reading a dataset needs; return the number of a filter that none of them has."""
    for code in _filters(dataset):
        if not h5py.h5z.filter_avail(code):
            importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            return code
    return None
