"""Streaming writer of the common HDF5 format, readable at every moment and after SIGKILL."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from solvers.common import schema
from solvers.common.layout import check_schema, create_layout
from solvers.common.live import LiveSuperblock, trim
from solvers.common.schema import MetadataValue
from solvers.common.superblock import release_file

_METADATA_SLACK_BYTES = 256 << 10


class HDF5Writer:
    """Appends frames to a file that stays readable while it grows and after its writer was killed.

    Every `append` is committed in order: the frames, then trajectory and scalars, then the time. The length of
    `coordinates/time` therefore counts frames that are complete. The file appears under its final name with its first
    frame; until then it is `.{name}.partial` beside it, so `overwrite=True` keeps an older file until there is
    something to replace it by.

    A context manager; leaving it closes the file without marking it complete, call `close(complete=True)` for that.

    Attributes:
        path: The file.
        num_samples: Frames committed so far.
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
            texts: Full name ("trajectories/source") -> text or one text per trajectory: where the frames came from.
            compression: None, "lz4" (bitshuffle + lz4, needs hdf5plugin to read) or "gzip".
            overwrite: Replace an existing file, once the first frame has been written.

        Raises:
            FileExistsError: If the file exists and `overwrite` is False.
            ValueError: If the schema is not a valid one.
        """
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"{self.path} exists: continue it with --resume or replace it with --overwrite")
        check_schema(fields, coordinates, compression)
        partial = self.path.with_name(f".{self.path.name}.partial")
        file = h5py.File(partial, "w", libver=("v110", "v110"))
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
        file.close()
        self._open(partial)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, num_samples: int) -> "HDF5Writer":
        """Reopen a file whose writer was stopped or killed, keeping its first `num_samples` frames.

        Args:
            path: File to continue.
            num_samples: Frames to keep: the count stored in the checkpoint that the run continues from.

        Raises:
            ValueError: If the file is missing, is not of this format, or holds fewer frames than that.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: expected a file to resume, found none; start without --resume")
        release_file(path)
        writer = cls.__new__(cls)
        writer.path = path
        writer._open(path)
        if not 0 <= num_samples <= writer.num_samples:
            present = writer.num_samples
            writer.close(complete=False)
            raise ValueError(
                f"{path}: expected at least the checkpoint's {num_samples} frames, found {present}; "
                "the checkpoint belongs to another file, start again with --overwrite"
            )
        writer._mark(complete=False)
        writer._truncate(num_samples)
        return writer

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
            ValueError: If names or shapes differ from those given at creation.
            OSError: If the disk is full or fails; the frames committed before stay readable.
        """
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is closed; reopen it with HDF5Writer.resume")
        times = np.atleast_1d(np.asarray(time, schema.TIME_DTYPE))
        blocks = self._check(fields, len(times), single=np.ndim(time) == 0)
        rows = self._check_scalars(scalars, len(times))
        trajectories = np.broadcast_to(np.asarray(trajectory, schema.TRAJECTORY_DTYPE), times.shape)
        start, stop = self.num_samples, self.num_samples + len(times)
        payload = sum(block.nbytes for block in blocks.values())
        try:
            self._superblock.reserve(self._file.id.get_filesize() + payload + _METADATA_SLACK_BYTES)
            for name, block in blocks.items():
                _write(self._fields[name], start, stop, block)
            for name, values in rows.items():
                _write(self._scalars[name], start, stop, values)
            _write(self._trajectory, start, stop, trajectories)
            _write(self._time, start, stop, times)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{self.path}: writing sample {start} failed ({error}); the {start} samples before it are intact: "
                "free disk space, then continue with --resume"
            ) from error
        self.num_samples = stop
        self._publish()

    def sync(self) -> None:
        """Put all frames on the disk itself: call it before a checkpoint that relies on them (power failure)."""
        self._superblock.sync()

    def close(self, *, complete: bool) -> None:
        """Close the file.

        Args:
            complete: Whether the run reached its end; stored as the attribute `complete`.
        """
        if self._file is None:
            return
        self._mark(complete=complete)
        file, self._file = self._file, None
        self._superblock.close()
        file.close()
        trim(self._current)
        self._publish()

    def __enter__(self) -> "HDF5Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(complete=False)

    def _open(self, current: Path) -> None:
        """Open the file at `current` for SWMR writing."""
        self._current = current
        flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
        file = h5py.File(h5py.h5f.open(os.fsencode(current), flags, access))
        self._file: h5py.File | None = file
        self._superblock = LiveSuperblock(current)
        self._superblock.reserve(file.id.get_filesize())
        self._fields = {name: dataset for name, dataset in file[schema.FIELDS].items()}
        self._scalars = {name: dataset for name, dataset in file[schema.SCALARS].items()}
        self._trajectory = file[schema.TRAJECTORY]
        self._time = file[schema.TIME]
        self.num_samples = len(self._time)

    def _mark(self, *, complete: bool) -> None:
        """Set the attribute `complete`, which exists since the file was created (SWMR mode can't add one)."""
        self._file[schema.METADATA].attrs.modify("complete", np.bool_(complete))

    def _publish(self) -> None:
        """Give the file its final name."""
        if self._current != self.path:
            os.replace(self._current, self.path)
            self._current = self.path

    def _truncate(self, num_samples: int) -> None:
        """Drop the frames from `num_samples` on, the time first: a kill in between leaves a consistent file."""
        for dataset in (self._time, self._trajectory, *self._scalars.values(), *self._fields.values()):
            if len(dataset) > num_samples:
                dataset.resize(num_samples, axis=0)
                dataset.flush()
        self.num_samples = num_samples

    def _check(self, fields: Mapping[str, np.ndarray], count: int, *, single: bool) -> dict[str, np.ndarray]:
        """Blocks (n, H, W[, C]) float32 of every field."""
        if set(fields) != set(self._fields):
            raise ValueError(f"{self.path}: expected the fields {sorted(self._fields)}, got {sorted(fields)}")
        blocks = {}
        for name, values in fields.items():
            frame = self._fields[name].shape[1:]
            expected = frame if single else (count, *frame)
            if np.shape(values) != expected:
                raise ValueError(
                    f"{self.path}: field {name!r}: expected shape {expected}, got {np.shape(values)}; "
                    "a block of n frames needs n times"
                )
            blocks[name] = np.ascontiguousarray(values, schema.FIELD_DTYPE).reshape(count, *frame)
        return blocks

    def _check_scalars(self, scalars: Mapping[str, float | np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Values (n,) of every scalar."""
        if set(scalars) != set(self._scalars):
            raise ValueError(f"{self.path}: expected the scalars {sorted(self._scalars)}, got {sorted(scalars)}")
        return {
            name: np.broadcast_to(np.asarray(value, schema.TIME_DTYPE), (count,)) for name, value in scalars.items()
        }


def _write(dataset: h5py.Dataset, start: int, stop: int, values: np.ndarray) -> None:
    """Put `values` at [start, stop) of a dataset that ends at `start` (or past it after a failure) and flush it."""
    dataset.resize(stop, axis=0)
    dataset[start:stop] = values
    dataset.flush()
