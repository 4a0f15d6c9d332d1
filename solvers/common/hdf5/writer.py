"""Streaming writer of the common HDF5 format, readable at every moment and after SIGKILL."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from solvers.common.files import WriterLock
from solvers.common.hdf5 import schema
from solvers.common.hdf5.appender import Appender, open_unshared
from solvers.common.hdf5.live import release_file
from solvers.common.hdf5.schema import COMPRESSIONS, MetadataValue, compression_options


class HDF5Writer:
    """Appends frames to a file that stays readable while it grows and after its writer was killed.

    Every `append` is committed in order: frames, scalars and trajectory, then the time. The length of
    `coordinates/time` therefore counts frames that are complete. The file appears under its final name with
    its first frame; until then it is `.{name}.partial` beside it, so that `overwrite=True` keeps an older
    file until there is something to replace it by. `.{name}.lock` beside it keeps a second writer away.

    A context manager; leaving it closes the file without marking it complete, `close(complete=True)` does
    that.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fields: Mapping[str, tuple[int, ...]],
        coordinates: Mapping[str, np.ndarray],
        metadata: Mapping[str, MetadataValue],
        parameters: Mapping[str, float | Sequence[float]] = {},
        scalars: Sequence[str] = (),
        texts: Mapping[str, str | Sequence[str]] = {},
        compression: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Create the file with its full schema and all metadata.

        Args:
            path: File to write.
            fields: name -> frame shape (H, W) or (H, W, C).
            coordinates: "x" (H,) and "y" (W,).
            metadata: Attributes of /metadata; `format_version` and `complete` are added.
            parameters: name -> value, or one value for each trajectory.
            scalars: Names of the diagnostics that each `append` brings.
            texts: Full name ("trajectories/source") -> text or one text per trajectory: where the frames came
                from.
            compression: None, "lz4" (bitshuffle + lz4, needs hdf5plugin to read) or "gzip".
            overwrite: Replace an existing file, once the first frame has been written.

        Raises:
            FileExistsError: If the file exists and `overwrite` is False.
            BlockingIOError: If another process is writing the file.
            OSError: If the file cannot be created.
            ValueError: If the schema is not a valid one.
        """
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise FileExistsError(
                f"{self.path} exists: continue it with --resume or replace it with --overwrite"
            )
        check_schema(fields, coordinates, compression)
        self._lock = WriterLock(self.path)
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with open_unshared(partial, "w") as file:
                create_layout(
                    file,
                    fields=fields,
                    coordinates=coordinates,
                    metadata={**metadata, "format_version": schema.FORMAT_VERSION, "complete": False},
                    parameters=parameters,
                    scalars=scalars,
                    texts=texts,
                    compression=compression,
                )
            self._target: Appender | None = Appender(partial)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            self._lock.release()
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = str(self.path)  # a full disk does not say which file it was
            raise
        self._num_samples = 0

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, num_samples: int) -> "HDF5Writer":
        """Reopen a file whose writer was stopped or killed, keeping its first `num_samples` frames.

        Args:
            path: File to continue.
            num_samples: Frames to keep: the count stored in the checkpoint that the run continues from.

        Raises:
            BlockingIOError: If another process is writing the file.
            ValueError: If the file is missing, is not of this format, or holds fewer frames than that.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: expected a file to resume, found none; start without --resume")
        writer = cls.__new__(cls)
        writer.path = path
        writer._lock = WriterLock(path)
        try:
            release_file(path)
            writer._target = _reopen(path, num_samples)
        except BaseException as error:
            writer._lock.release()
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = str(path)
            raise
        writer._num_samples = num_samples
        return writer

    @property
    def num_samples(self) -> int:
        """Frames committed so far."""
        return self._num_samples

    def append(
        self,
        fields: Mapping[str, np.ndarray],
        *,
        time: float | np.ndarray,
        trajectory: int | np.ndarray = 0,
        scalars: Mapping[str, float | np.ndarray] = {},
    ) -> None:
        """Write one frame or a block of frames and commit it.

        Args:
            fields: name -> (H, W[, C]) or (n, H, W[, C]), cast to float32.
            time: One time, or (n,) times for a block.
            trajectory: Index of the trajectory, or (n,).
            scalars: name -> value or (n,), for every name given at creation.

        Raises:
            ValueError: If names or shapes differ from those given at creation, or the writer is closed.
            OSError: If the disk is full or fails; the frames committed before stay readable.
        """
        target = self._opened()
        times = np.atleast_1d(np.asarray(time, schema.TIME_DTYPE))
        blocks = self._check_fields(fields, len(times), single=np.ndim(time) == 0)
        rows = self._check_rows(scalars, trajectory, len(times))
        if len(times) == 0:
            return
        try:
            target.append(blocks, rows, times)
        except (OSError, RuntimeError) as error:
            remedy = (
                f"the {self.num_samples} samples before it are intact; make room, then continue with --resume"
                if self.num_samples
                else "nothing is kept; make room, then start again"
            )
            raise OSError(
                f"{self.path}: writing sample {self.num_samples} failed ({_reason(error)}), {remedy}"
            ) from error
        self._num_samples = target.num_samples
        self._publish(target)

    def sync(self) -> None:
        """Put all frames on the disk itself: before a checkpoint that is to survive a power failure too."""
        self._opened().sync()

    def close(self, *, complete: bool) -> None:
        """Close the file; a second call does nothing.

        Args:
            complete: Whether the run reached its end; stored as the attribute `complete`.

        Raises:
            OSError: If the disk is full or fails; the frames committed before stay readable.
        """
        if self._target is None:
            return
        target, self._target = self._target, None
        try:
            target.close(complete=complete)
            self._publish(target)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{self.path}: closing failed ({_reason(error)}), its {self.num_samples} samples are intact; "
                "make room, then continue with --resume"
            ) from error
        finally:
            self._lock.release()

    def __enter__(self) -> "HDF5Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(complete=False)

    def _opened(self) -> Appender:
        """Return the open file."""
        if self._target is None:
            raise ValueError(f"{self.path}: the writer is closed; reopen the file with HDF5Writer.resume")
        return self._target

    def _publish(self, target: Appender) -> None:
        """Give the file its final name."""
        if target.path != self.path:
            target.rename(self.path)

    def _check_fields(
        self, fields: Mapping[str, np.ndarray], count: int, *, single: bool
    ) -> dict[str, np.ndarray]:
        """Blocks (n, H, W[, C]) float32 of every field."""
        columns = self._opened().fields
        if set(fields) != set(columns):
            raise ValueError(f"{self.path}: expected the fields {sorted(columns)}, got {sorted(fields)}")
        blocks = {}
        for name, values in fields.items():
            frame = columns[name].row
            expected = frame if single else (count, *frame)
            if np.shape(values) != expected:
                raise ValueError(
                    f"{self.path}: field {name!r}: expected shape {expected}, got {np.shape(values)}; "
                    "a block of n frames needs n times"
                )
            blocks[name] = np.ascontiguousarray(values, schema.FIELD_DTYPE).reshape(count, *frame)
        return blocks

    def _check_rows(
        self, scalars: Mapping[str, float | np.ndarray], trajectory: int | np.ndarray, count: int
    ) -> dict[str, np.ndarray]:
        """Values (n,) of every scalar and of the trajectory, by dataset name."""
        columns = self._opened().rows
        given = {f"{schema.SCALARS}/{name}": value for name, value in scalars.items()}
        given[schema.TRAJECTORY] = trajectory
        if set(given) != set(columns):
            expected = sorted(set(columns) - {schema.TRAJECTORY})
            raise ValueError(f"{self.path}: expected {expected}, got the scalars {sorted(scalars)}")
        rows = {name: np.asarray(value) for name, value in given.items()}
        for name, values in rows.items():
            if values.shape not in ((), (count,)):
                raise ValueError(f"{self.path}: {name}: expected one value or {count}, got {values.shape}")
        return {name: np.broadcast_to(values, (count,)) for name, values in rows.items()}


def _reopen(path: Path, num_samples: int) -> Appender:
    """Open a file for appending after its first `num_samples` frames."""
    target = Appender(path)
    present = target.num_samples
    if not 0 <= num_samples <= present:
        target.close(complete=False)
        raise ValueError(
            f"{path}: expected at least the checkpoint's {num_samples} frames, found {present}; "
            "the checkpoint belongs to another file, start again with --overwrite"
        )
    target.reopen()
    target.truncate(num_samples)
    return target


def _reason(error: OSError | RuntimeError) -> str:
    """Return the cause in a few words: HDF5's own message runs over several lines."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error).splitlines()[0]


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
