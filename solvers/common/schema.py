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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

BOUNDARIES = ("periodic", "wall")
GRIDS = ("uniform", "chebyshev")
REQUIRED_METADATA = (
    "format_version",
    "solver",
    "boundary_x",
    "boundary_y",
    "grid_y",
    "package_version",
    "git_commit",
    "complete",
)

MIN_CHUNK_BYTES = 64 * 1024
ROW_CHUNK = 512

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


def frames_per_chunk(frame_bytes: int) -> int:
    """Frames that share one chunk: 1, except for frames far smaller than a chunk should be.

    A frame of 64 KiB or more (128 x 128 float32) is its own chunk, so that reading a random frame reads nothing
    else. Smaller frames are grouped until a chunk holds 64 KiB: each chunk costs an index entry and a system call,
    which for a 4 KB frame outweigh the bytes.
    """
    return max(1, MIN_CHUNK_BYTES // max(1, frame_bytes))


def plain_value(value: Any) -> MetadataValue:
    """Attribute value as h5py returns it -> python str, bool, int or float."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        if value.size == 1:
            return plain_value(value.reshape(())[()])
        return str(value.tolist())
    if isinstance(value, np.generic):
        return plain_value(value.item())
    if isinstance(value, (str, bool, int, float)):
        return value
    return str(value)
