"""Creates the groups and datasets of the common HDF5 format in an empty file."""

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.filters import COMPRESSIONS, compression_options
from solvers.common.hdf5.schema import MetadataValue


def check_schema(
    fields: Mapping[str, tuple[int, ...]], coordinates: Mapping[str, np.ndarray], compression: str | None
) -> None:
    """Check that a file of these fields and coordinates would be valid.

    Raises:
        ValueError: For no fields, frames that are not (H, W) or (H, W, C), frames of different grids,
            coordinates that do not fit the grid, or an unknown compression.
    """
    if not fields:
        raise ValueError(
            "fields: expected at least one field, got none; name one, e.g. {'vorticity': (128, 128)}"
        )
    grids = {name: tuple(shape[:2]) for name, shape in fields.items()}
    for name, shape in fields.items():
        if not name or "/" in name:
            raise ValueError(f"fields: expected a name without '/', got {name!r}; rename the field")
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(
                f"field {name!r}: expected a frame shape (H, W) or (H, W, C), got {tuple(shape)}"
            )
    if len(set(grids.values())) > 1:
        raise ValueError(
            f"fields: expected one grid for all fields, got {grids}; write one file for each grid"
        )
    grid = next(iter(grids.values()))
    for axis, name in enumerate(("x", "y")):
        if name not in coordinates:
            raise ValueError(f"coordinates: expected 'x' and 'y', got {sorted(coordinates)}; add {name!r}")
        shape = np.shape(coordinates[name])
        if shape != (grid[axis],):
            raise ValueError(
                f"coordinate {name!r}: expected shape ({grid[axis]},) as axis {axis} of a frame, got {shape}"
            )
    if compression is not None and compression not in COMPRESSIONS:
        raise ValueError(f"compression: expected one of {COMPRESSIONS} or None, got {compression!r}")


def create_layout(
    file: h5py.File,
    *,
    fields: Mapping[str, tuple[int, ...]],
    coordinates: Mapping[str, np.ndarray],
    metadata: Mapping[str, MetadataValue],
    parameters: Mapping[str, Any],
    scalars: Sequence[str],
    compression: str | None,
    texts: Mapping[str, str | Sequence[str]] = {},
    frames_per_chunk: int | None = None,
) -> None:
    """Create every group, dataset and attribute of a file with no samples yet.

    Args:
        file: Empty file opened for writing.
        fields: name -> frame shape (H, W) or (H, W, C).
        coordinates: "x" (H,) and "y" (W,).
        metadata: Attributes of /metadata.
        parameters: name -> one value for each trajectory.
        scalars: Names of the per-sample diagnostics.
        compression: None, "lz4" or "gzip".
        texts: full name -> text or texts.
        frames_per_chunk: Frames in one chunk; by default `schema.frames_per_chunk`, and 1 with compression,
            since a compressed chunk that grows frame by frame is stored anew each time.
    """
    filters = compression_options(compression)
    for name, shape in fields.items():
        frame_bytes = int(np.prod(shape)) * schema.FIELD_DTYPE.itemsize
        grouped = 1 if compression else schema.frames_per_chunk(frame_bytes)
        file.create_dataset(
            f"{schema.FIELDS}/{name}",
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(frames_per_chunk or grouped, *shape),
            dtype=schema.FIELD_DTYPE,
            **filters,
        )
    for name in ("x", "y"):
        file.create_dataset(
            f"{schema.COORDINATES}/{name}", data=np.asarray(coordinates[name], schema.FIELD_DTYPE)
        )
    _create_rows(file, schema.TIME, schema.TIME_DTYPE, fill=np.nan)
    _create_rows(file, schema.TRAJECTORY, schema.TRAJECTORY_DTYPE)
    group = file.create_group(schema.PARAMETERS)
    for name, values in parameters.items():
        group.create_dataset(name, data=np.atleast_1d(np.asarray(values, schema.TIME_DTYPE)))
    file.create_group(schema.SCALARS)
    for name in scalars:
        _create_rows(file, f"{schema.SCALARS}/{name}", schema.TIME_DTYPE)
    for name, text in texts.items():
        file.create_dataset(name, data=text, dtype=h5py.string_dtype())
    attributes = file.create_group(schema.METADATA).attrs
    for name, value in metadata.items():
        attributes[name] = value


def _create_rows(file: h5py.File, name: str, dtype: np.dtype[Any], fill: float = 0) -> None:
    """Create an empty 1-D dataset that grows by an entry a sample; `fill` is what dropped entries become."""
    chunks = (schema.ROW_CHUNK,)
    file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=chunks, dtype=dtype, fillvalue=fill)
