"""Writes the ragged layout: one array a quantity with all samples behind each other, and tables of offsets.

`GROUP/NAME` holds the rows of all samples along axis 0, in Zarr v3 shards; sample i of an array on axis A has
the rows `offsets/A[i]` to `offsets/A[i + 1]`. Files on disk therefore grow with bytes, not with samples.
"""

from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gust_torch.data.graphs.optional import require
from gust_torch.data.graphs.schema import Kind, Sample, Schema, describe, differences, to_rows

LAYOUT = "ragged"
VERSION = 1
# A random read decodes one chunk of each array: small. A shard is one file and one write: large.
CHUNK_BYTES = 32 << 10
SHARD_CHUNKS = 256
OFFSETS_CHUNK = 1 << 17
# UTF-8 bytes of the name of each sample's source file.
SOURCE = "source"


class RaggedWriter:
    """Appends samples to a new store in one pass; memory is one shard (8 MiB) for each array.

    A context manager that closes the store when its block ends without an exception. Only a closed store can
    be read, so write to a temporary name and rename.
    """

    def __init__(self, path: str | Path, kind: Kind, *, attributes: Mapping[str, Any] | None = None) -> None:
        """Create the store.

        Args:
            path: Folder of the store, which must not exist.
            kind: Mesh or particles.
            attributes: Further attributes of the group.

        Raises:
            ValueError: zarr is not installed.
        """
        zarr = require("zarr")
        self.kind = kind
        self.num_samples = 0
        self._schema: Schema | None = None
        self._columns: dict[str, _Column] = {}
        self._offsets: dict[str, array[int]] = {}
        # Without "num_samples" and "axes" a store is unfinished.
        layout = {"layout": LAYOUT, "version": VERSION, "kind": kind.name}
        root = zarr.create_group(str(path), zarr_format=3)
        self._group = root.create_group(kind.group, attributes={**(attributes or {}), **layout})

    def append(self, arrays: Sample, *, source: str, schema: Schema | None = None) -> None:
        """Add one sample.

        Args:
            arrays: Its arrays under the names of the source.
            source: Name of its source, for the record.
            schema: `describe(kind, arrays)` where the caller has it.

        Raises:
            ValueError: Arrays that are not those of the samples before it.
        """
        schema = describe(self.kind, arrays) if schema is None else schema
        if self._schema is None:
            self._create(schema)
        elif schema != self._schema:
            raise ValueError(f"{source}: {'; '.join(differences(self._schema, schema))}")
        lengths = {}
        for name, column in schema.items():
            rows = to_rows(arrays[name], column.axis)
            self._columns[name].append(rows)
            lengths[column.axis] = len(rows)
        lengths[SOURCE] = self._append_source(source)
        # Particles whose positions have a time axis have no array along "node", yet need their number.
        lengths["node"] = arrays[self.kind.geometry].shape[-2]
        for axis, length in lengths.items():
            if axis != "sample":
                self._offsets[axis].append(self._offsets[axis][-1] + length)
        self.num_samples += 1

    def close(self) -> None:
        """Write what is buffered, the offsets and the attributes that make the store readable.

        Raises:
            ValueError: No sample was appended.
        """
        if self._schema is None:
            raise ValueError("a store needs at least one sample; append one before closing")
        for column in self._columns.values():
            column.finish()
        offsets = self._group.create_group("offsets")
        for axis, values in self._offsets.items():
            chunks = min(len(values), OFFSETS_CHUNK)
            table = offsets.create_array(axis, shape=(len(values),), dtype="int64", chunks=(chunks,))
            table[:] = np.asarray(values)
        axes = {name: column.axis for name, column in self._schema.items()}
        self._group.attrs.update({"num_samples": self.num_samples, "axes": axes})

    def _create(self, schema: Schema) -> None:
        self._schema = schema
        for name, column in schema.items():
            self._columns[name] = _Column(self._group, name, column.dtype, column.trailing)
        self._columns[SOURCE] = _Column(self._group, SOURCE, "uint8", ())
        axes = {column.axis for column in schema.values()} | {"node", SOURCE}
        self._offsets = {axis: array("q", [0]) for axis in sorted(axes - {"sample"})}

    def _append_source(self, source: str) -> int:
        text = np.frombuffer(source.encode(), np.uint8)
        self._columns[SOURCE].append(text)
        return len(text)

    def __enter__(self) -> "RaggedWriter":
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store unless an exception is on its way."""
        if error is None:
            self.close()


class _Column:
    """One growing array, written a whole shard at a time."""

    def __init__(self, group: Any, name: str, dtype: str, trailing: tuple[int, ...]) -> None:
        """Args: as of the array; it starts with no rows."""
        row_bytes = max(1, np.dtype(dtype).itemsize * int(np.prod(trailing)))
        rows = max(1, CHUNK_BYTES // row_bytes)
        self._shard_rows = rows * SHARD_CHUNKS
        self._array = group.create_array(
            name,
            shape=(0, *trailing),
            dtype=dtype,
            chunks=(rows, *trailing),
            shards=(self._shard_rows, *trailing),
            compressors=require("zarr.codecs").ZstdCodec(level=0, checksum=True),
            # A chunk that is not there is damage then, never zeros.
            config={"write_empty_chunks": True},
        )
        self._pending: list[np.ndarray] = []
        self._num_pending = 0

    def append(self, rows: np.ndarray) -> None:
        """Buffers rows and writes the shards that they complete."""
        self._pending.append(rows)
        self._num_pending += len(rows)
        if self._num_pending >= self._shard_rows:
            self._flush(self._num_pending - self._num_pending % self._shard_rows)

    def finish(self) -> None:
        """Write the rest."""
        if self._num_pending:
            self._flush(self._num_pending)

    def _flush(self, count: int) -> None:
        rows = np.concatenate(self._pending)
        start = self._array.shape[0]
        self._array.resize((start + count, *self._array.shape[1:]))
        self._array[start:] = rows[:count]
        self._pending = [rows[count:].copy()]
        self._num_pending -= count
