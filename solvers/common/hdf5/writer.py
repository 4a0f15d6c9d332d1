"""Streaming writer of the common HDF5 format, readable at every moment and after SIGKILL.

The file is open in HDF5's SWMR (single writer, multiple readers) mode. Growing datasets are written through
h5py's low-level calls, a quarter of the time of the high-level ones.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from solvers.common.files import WriterLock, naming
from solvers.common.hdf5 import schema
from solvers.common.hdf5.live import LiveSuperblock, release_file, trim
from solvers.common.hdf5.reader import open_hdf5
from solvers.common.hdf5.schema import COMPRESSIONS, MetadataValue

_METADATA_SLACK_BYTES = 256 << 10


class HDF5Writer:
    """Appends frames to a file that stays readable while it grows and after its writer was killed.

    Every `append` is committed in order: frames, scalars and trajectory, then the time. The length of
    `coordinates/time` therefore counts frames that are complete. The file appears under its final name with
    its first frame; until then it is `.{name}.partial` beside it, so that `overwrite=True` keeps an older
    file until there is something to replace it by. `.{name}.lock` beside it keeps a second writer away.

    A context manager; leaving it closes the file without marking it complete, `close(complete=True)` does
    that.

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

    Attributes:
        path: The file.
        num_samples: Frames committed so far.

    Raises:
        FileExistsError: If the file exists and `overwrite` is False.
        BlockingIOError: If another process is writing the file.
        OSError: If the file cannot be created.
        ValueError: If the schema is not a valid one.
    """

    num_samples: int

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
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: continue it with --resume or replace it with --overwrite")
        _check_schema(fields, coordinates, compression)
        partial = path.with_name(f".{path.name}.partial")
        with self._locked(path, partial):
            # Where the file system has no locks HDF5 would refuse; ours keeps other writers away.
            with h5py.File(partial, "w", libver=("v110", "v110"), locking=False) as file:
                # A compressed chunk that grows frame by frame is stored anew each time.
                for name, frame in fields.items():
                    frame_bytes = int(np.prod(frame)) * schema.FIELD_DTYPE.itemsize
                    chunk = 1 if compression else schema.frames_per_chunk(frame_bytes)
                    field = f"{schema.FIELDS}/{name}"
                    schema.create_field(file, field, frame, count=0, chunk=chunk, compression=compression)
                for axis, name in (("x", schema.X), ("y", schema.Y)):
                    file[name] = np.asarray(coordinates[axis], schema.FIELD_DTYPE)
                schema.create_rows(file, schema.TIME, np.zeros(0, schema.TIME_DTYPE), fill=np.nan)
                schema.create_rows(file, schema.TRAJECTORY, np.zeros(0, schema.TRAJECTORY_DTYPE))
                file.create_group(schema.PARAMETERS)
                for name, values in parameters.items():
                    file[schema.PARAMETERS][name] = np.atleast_1d(np.asarray(values, schema.TIME_DTYPE))
                file.create_group(schema.SCALARS)
                for name in scalars:
                    schema.create_rows(file[schema.SCALARS], name, np.zeros(0, schema.TIME_DTYPE))
                for name, text in texts.items():
                    file.create_dataset(name, data=text, dtype=h5py.string_dtype())
                attributes = file.create_group(schema.METADATA).attrs
                for name, value in metadata.items():
                    attributes[name] = value
                attributes["format_version"], attributes["complete"] = schema.FORMAT_VERSION, False
            self._open(partial)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        num_samples: int,
        metadata: Mapping[str, MetadataValue | None] = {},
    ) -> "HDF5Writer":
        """Reopen a file whose writer was stopped or killed, keeping its first `num_samples` frames.

        Args:
            path: File to continue.
            num_samples: Frames to keep: the count stored in the checkpoint that the run continues from.
            metadata: New values of attributes of /metadata.

        Raises:
            BlockingIOError: If another process is writing the file.
            ValueError: If the file is missing or damaged, is not of this format, or holds fewer frames.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: expected a file to resume, found none; start without --resume")
        writer = cls.__new__(cls)
        with writer._locked(path):
            with open_hdf5(path) as file:  # what is refused stays as it is
                needed = (schema.FIELDS, schema.SCALARS, schema.METADATA, schema.TIME, schema.TRAJECTORY)
                if missing := [f"/{name}" for name in needed if name not in file]:
                    raise ValueError(
                        f"{path}: expected a file written by HDF5Writer, {missing} missing; write a new file"
                    )
                if not 0 <= num_samples <= (count := len(file[schema.TIME])):
                    found = f"the checkpoint's {num_samples} frames, found {count}"
                    raise ValueError(f"{path}: expected at least {found}; start again with --overwrite")
            release_file(path)
            writer._open(path)
            writer._update_metadata({**metadata, "complete": False})
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
        """Write one frame, or a block of n frames at n times, and commit it.

        Args:
            fields: name -> (H, W[, C]) or (n, H, W[, C]), cast to float32.
            time: One time, or (n,).
            trajectory: Index of the trajectory, or (n,).
            scalars: name -> value or (n,), for every name given at creation.

        Raises:
            ValueError: If names or shapes differ from those given at creation, or the writer is closed.
            OSError: If the disk is full or fails; the frames committed before stay readable.
        """
        file = self._opened()
        times = np.atleast_1d(np.asarray(time, schema.TIME_DTYPE))
        blocks = self._blocks(fields, len(times), single=np.ndim(time) == 0)
        rows = self._rows_of(scalars, trajectory, len(times))
        start = self.num_samples
        if len(times) == 0:
            return
        try:
            payload = sum(block.nbytes for block in blocks.values())
            self._superblock.reserve(file.id.get_filesize(), payload + _METADATA_SLACK_BYTES)
            for name, block in blocks.items():
                self._fields[name].write(start, block)
            for name, values in rows.items():
                self._rows[name].write(start, values)
            self._time.write(start, times)
        except (OSError, RuntimeError) as error:
            kept = f"the {start} samples before it are intact; make room, then continue with --resume"
            nothing = "nothing is kept; make room, then start again"
            raise OSError(
                f"{self.path}: writing sample {start} failed ({_reason(error)}), {kept if start else nothing}"
            ) from error
        self.num_samples = start + len(times)
        self._publish()

    def sync(self) -> None:
        """Put all frames on the disk itself: before a checkpoint that is to survive a power failure too."""
        self._opened()
        self._superblock.sync()

    def close(self, *, complete: bool) -> None:
        """Close the file and note whether the run is `complete`; a second call does nothing.

        Raises:
            OSError: If the disk is full or fails; the frames committed before stay readable.
        """
        if self._file is None:
            return
        try:
            self._close_file(complete=complete)
            self._publish()
        except (OSError, RuntimeError) as error:
            kept = f"its {self.num_samples} samples are intact; make room, then continue with --resume"
            raise OSError(f"{self.path}: closing failed ({_reason(error)}), {kept}") from error
        finally:
            self._lock.release()

    def __enter__(self) -> "HDF5Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(complete=False)

    @contextmanager
    def _locked(self, path: Path, partial: Path | None = None) -> Iterator[None]:
        """Take the lock, for good if the block ends well; else a `partial` file goes."""
        self.path = path
        self._lock = WriterLock(path)
        try:
            with naming(path):
                yield
        except BaseException:
            if partial is not None:
                partial.unlink(missing_ok=True)
            self._lock.release()
            raise

    def _open(self, path: Path) -> None:
        """Open an existing file for appending; `path` may be its hidden name."""
        # Without a chunk cache every row goes to the file once, by its own size.
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
        access.set_cache(0, 0, 0, 0.75)

        flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
        try:
            file = h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))
        except OSError as error:
            if "unable to lock file" not in str(error):  # what HDF5 says, whatever the reason
                raise
            # A reader elsewhere has the file open, whom SWMR writing does not disturb, or the file system has
            # no locks. (Not the default: HDF5 refuses a reader in this process whose locking differs.)
            access.set_file_locking(False, True)
            file = h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))
        try:
            self._superblock = LiveSuperblock(path)
            self._superblock.reserve(file.id.get_filesize(), _METADATA_SLACK_BYTES)
        except BaseException:
            file.close()
            raise
        self._file: h5py.File | None = file
        self._place = path
        self._time = _Column(file[schema.TIME])
        self._fields = {name: _Column(dataset) for name, dataset in file[schema.FIELDS].items()}
        self._rows = {f"{schema.SCALARS}/{name}": _Column(d) for name, d in file[schema.SCALARS].items()}
        self._rows[schema.TRAJECTORY] = _Column(file[schema.TRAJECTORY])
        self.num_samples = len(self._time)

    def _opened(self) -> h5py.File:
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is closed; reopen the file with HDF5Writer.resume")
        return self._file

    def _update_metadata(self, values: Mapping[str, MetadataValue | None]) -> None:
        """Change attributes, for good before anything else changes in the file."""
        file = self._opened()
        attributes = file[schema.METADATA].attrs
        changed = {name: value for name, value in values.items() if attributes.get(name, value) != value}
        for name, value in changed.items():  # SWMR mode can't add any
            attributes.modify(name, value)
        if changed:
            self._superblock.settle(file.id.get_filesize())
            file.flush()
            self._superblock.reserve(file.id.get_filesize(), _METADATA_SLACK_BYTES)

    def _truncate(self, num_samples: int) -> None:
        """Drop the samples from `num_samples` on, the time first: a kill in between does no harm."""
        for column in (self._time, *self._rows.values(), *self._fields.values()):
            column.truncate(num_samples)
        self.num_samples = num_samples

    def _close_file(self, *, complete: bool) -> None:
        """Drop what a failed append left, mark the file and close it."""
        file, self._file = self._opened(), None
        try:
            self._truncate(self.num_samples)
            file[schema.METADATA].attrs.modify("complete", np.bool_(complete))
            self._superblock.settle(file.id.get_filesize())
        finally:
            self._superblock.close()
            file.close()
        trim(self._place)

    def _publish(self) -> None:
        """Give the file its final name."""
        if self._place != self.path:
            os.replace(self._place, self.path)
            self._place = self.path

    def _blocks(self, fields: Mapping[str, np.ndarray], count: int, *, single: bool) -> dict[str, np.ndarray]:
        """Return blocks (n, H, W[, C]) float32 of every field."""
        if set(fields) != set(self._fields):
            raise ValueError(f"{self.path}: expected the fields {sorted(self._fields)}, got {sorted(fields)}")
        blocks = {}
        for name, values in fields.items():
            frame = self._fields[name].row
            expected = frame if single else (count, *frame)
            if np.shape(values) != expected:
                found = f"expected shape {expected}, got {np.shape(values)}"
                raise ValueError(f"{self.path}: field {name!r}: {found}; a block of n frames needs n times")
            blocks[name] = np.ascontiguousarray(values, schema.FIELD_DTYPE).reshape(count, *frame)
        return blocks

    def _rows_of(
        self, scalars: Mapping[str, float | np.ndarray], trajectory: int | np.ndarray, count: int
    ) -> dict[str, np.ndarray]:
        """Values (n,) of every scalar and of the trajectory, by dataset name."""
        rows = {f"{schema.SCALARS}/{name}": np.asarray(value) for name, value in scalars.items()}
        rows[schema.TRAJECTORY] = np.asarray(trajectory)
        if set(rows) != set(self._rows):
            expected = sorted(set(self._rows) - {schema.TRAJECTORY})
            raise ValueError(f"{self.path}: expected {expected}, got the scalars {sorted(scalars)}")
        for name, values in rows.items():
            if values.shape not in ((), (count,)):
                raise ValueError(f"{self.path}: {name}: expected one value or {count}, got {values.shape}")
        return {name: np.broadcast_to(values, (count,)) for name, values in rows.items()}


class _Column:
    """A dataset that grows along axis 0 by one row of shape `row` for each sample."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.row: tuple[int, ...] = dataset.shape[1:]
        self._id = dataset.id
        self._dtype = dataset.dtype
        self._chunk: int = dataset.chunks[0]
        # Whole unfiltered chunks go to the file as they are, past HDF5's selections and copies.
        self._direct = dataset.chunks[1:] == self.row and not schema.filter_names(dataset)

    def __len__(self) -> int:
        return int(self._id.shape[0])

    def write(self, start: int, values: np.ndarray) -> None:
        """Put rows (n, *row) at [start, start + n), and flush them to the file."""
        values = np.ascontiguousarray(values, self._dtype)
        stop = start + len(values)
        self._id.set_extent((stop, *self.row))
        # Rows [first, last) fill chunks.
        first, last = -(-start // self._chunk) * self._chunk, stop // self._chunk * self._chunk
        if not self._direct or first >= last:
            first = last = stop
        self._select(start, values[: first - start], stop)
        origin = (0,) * len(self.row)
        for index in range(first, last, self._chunk):
            self._id.write_direct_chunk((index, *origin), values[index - start : index - start + self._chunk])
        self._select(last, values[last - start :], stop)
        self._id.flush()

    def _select(self, start: int, values: np.ndarray, stop: int) -> None:
        """Put rows at [start, ...) of a dataset of `stop` rows through HDF5's selections."""
        if len(values):
            target = h5py.h5s.create_simple((stop, *self.row))
            target.select_hyperslab((start, *(0,) * len(self.row)), values.shape)
            self._id.write(h5py.h5s.create_simple(values.shape), target, values)

    def truncate(self, stop: int) -> None:
        """Drop the rows from `stop` on.

        HDF5 overwrites dropped rows by the fill value before it shortens the dataset. Going back chunk by
        chunk keeps rows that a kill leaves in between at the end of the dataset.
        """
        while len(self) > stop:
            start_of_last_chunk = (len(self) - 1) // self._chunk * self._chunk
            self._id.set_extent((max(stop, start_of_last_chunk), *self.row))
            self._id.flush()


def _reason(error: OSError | RuntimeError) -> str:
    """Return the cause in a few words: HDF5's own message runs over several lines."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error).splitlines()[0]


def _check_schema(
    fields: Mapping[str, tuple[int, ...]], coordinates: Mapping[str, np.ndarray], compression: str | None
) -> None:
    """Refuse a file of no fields, of frames that fit neither each other nor the coordinates, or odd names."""
    if not fields or not all(name and "/" not in name for name in fields):
        raise ValueError(f"fields: expected at least one field, names without '/', got {list(fields)}")
    if any(len(shape) not in (2, 3) or min(shape) < 1 for shape in fields.values()):
        raise ValueError(f"fields: expected frame shapes (H, W) or (H, W, C), got {dict(fields)}")
    grids = {tuple(shape[:2]) for shape in fields.values()}
    if len(grids) > 1:
        raise ValueError(
            f"fields: expected one grid for all fields, got {sorted(grids)}; write a file for each"
        )
    found = {axis: np.shape(values) for axis, values in coordinates.items()}
    height, width = grids.pop()
    if (found.get("x"), found.get("y")) != ((height,), (width,)):
        raise ValueError(f"coordinates: expected 'x' ({height},) and 'y' ({width},), got {found}")
    if compression not in (None, *COMPRESSIONS):
        raise ValueError(f"compression: expected one of {COMPRESSIONS} or None, got {compression!r}")
