"""Writes the ragged layout: one array a quantity with all samples behind each other, and tables of offsets.

`GROUP/NAME` holds the rows of all samples along axis 0, in Zarr v3 shards; sample i of an array on axis A has
the rows `offsets/A[i]` to `offsets/A[i + 1]`. Files on disk therefore grow with bytes, not with samples.
"""

import math
from array import array
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from gust_torch.data.graphs import require
from gust_torch.data.graphs.schema import Column, Kind, Sample, Schema, describe, differences

LAYOUT = "ragged"
VERSION = 1
# A random read decodes one chunk of each array: small. A shard is one file and one write: large.
CHUNK_BYTES = 32 << 10
SHARD_CHUNKS = 256
OFFSETS_CHUNK = 1 << 17
# UTF-8 bytes of the name of each sample's source file.
SOURCE = "source"


class RaggedWriter(AbstractContextManager["RaggedWriter"]):
    """Appends samples to a new store in one pass; memory is one shard (8 MiB) for each array.

    A context manager that closes the store when its block ends without an exception. Only a closed store can
    be read, so write to a temporary name and rename.
    """

    def __init__(self, path: str | Path, kind: Kind, *, attributes: Mapping[str, Any] | None = None) -> None:
        """Create the store, a folder that must not exist; its group gets further attributes."""
        self.kind = kind
        self.num_samples = 0
        self._schema: Schema | None = None
        self._columns: dict[str, _Growing] = {}
        self._offsets: dict[str, array[int]] = {}
        # Without "num_samples" and "axes" a store is unfinished.
        layout = {"layout": LAYOUT, "version": VERSION, "kind": kind.name}
        root = require("zarr").create_group(str(path), zarr_format=3)
        self._group = root.create_group(kind.group, attributes={**(attributes or {}), **layout})

    def append(self, arrays: Sample, *, source: str, schema: Schema | None = None) -> None:
        """Add one sample, its arrays under the names of the source, which is recorded.

        `schema` is `describe(kind, arrays)` where the caller has it. A ValueError says which arrays are not
        those of the samples before it.
        """
        schema = describe(self.kind, arrays) if schema is None else schema
        if schema != (self._schema or schema):
            raise ValueError(f"{source}: {'; '.join(differences(self._schema or {}, schema))}")
        self._schema = schema
        stored = {**arrays, SOURCE: np.frombuffer(source.encode(), np.uint8)}
        # Particles whose positions have a time axis have no array along "node", yet need their number.
        lengths = {"node": arrays[self.kind.geometry].shape[-2]}
        for name, column in {**schema, SOURCE: Column(SOURCE, "uint8", ())}.items():
            lead = stored[name].shape[: len(stored[name].shape) - len(column.trailing)]
            rows = stored[name].reshape(math.prod(lead), *column.trailing)
            if name not in self._columns:
                self._columns[name] = _Growing(self._group, name, column)
            self._columns[name].append(rows)
            lengths[column.axis] = len(rows)
        for axis, length in lengths.items():
            offsets = self._offsets.setdefault(axis, array("q", [0]))
            offsets.append(offsets[-1] + length)
        self.num_samples += 1

    def close(self) -> None:
        """Write what is buffered, the offsets and the attributes that make the store readable."""
        if self._schema is None:
            raise ValueError("a store needs at least one sample; append one before closing")
        for column in self._columns.values():
            column.flush(column.num_pending)
        group = self._group.create_group("offsets")
        for axis in self._offsets.keys() - {"sample"}:
            values = np.asarray(self._offsets[axis])
            chunks = (min(len(values), OFFSETS_CHUNK),)
            group.create_array(axis, shape=values.shape, dtype="int64", chunks=chunks)[:] = values
        axes = {name: column.axis for name, column in self._schema.items()}
        self._group.attrs.update({"num_samples": self.num_samples, "axes": axes})

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close the store unless an exception is on its way."""
        if error is None:
            self.close()


class _Growing:
    """One growing array, written a whole shard at a time."""

    def __init__(self, group: Any, name: str, column: Column) -> None:
        row_bytes = np.dtype(column.dtype).itemsize * math.prod(column.trailing)
        rows = max(1, CHUNK_BYTES // max(1, row_bytes))
        self._shard_rows = rows * SHARD_CHUNKS
        self._array = group.create_array(
            name,
            shape=(0, *column.trailing),
            dtype=column.dtype,
            chunks=(rows, *column.trailing),
            shards=(self._shard_rows, *column.trailing),
            compressors=require("zarr.codecs").ZstdCodec(level=0, checksum=True),
            # A chunk that is not there is damage then, never zeros.
            config={"write_empty_chunks": True},
        )
        self._pending: list[np.ndarray] = []
        self.num_pending = 0

    def append(self, rows: np.ndarray) -> None:
        """Buffers rows and writes the shards that they complete."""
        self._pending.append(rows)
        self.num_pending += len(rows)
        if self.num_pending >= self._shard_rows:
            self.flush(self.num_pending - self.num_pending % self._shard_rows)

    def flush(self, count: int) -> None:
        """Write the first rows of those that are buffered."""
        if count == 0:
            return
        rows = np.concatenate(self._pending)
        start = self._array.shape[0]
        self._array.resize((start + count, *self._array.shape[1:]))
        self._array[start:] = rows[:count]
        self._pending = [rows[count:].copy()]
        self.num_pending -= count
