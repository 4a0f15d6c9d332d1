"""The layout with one group a sample: `GROUP/SAMPLE/coords`, `GROUP/SAMPLE/laplacian/data`, ...

Good for a few samples and for other programs that read it. Every array is a folder with two files, so that
large sets belong in the ragged layout.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gust_torch.data.graphs.optional import require
from gust_torch.data.graphs.schema import Kind, Sample, Schema, describe

# An attribute where other programs look for it; any other scalar is an attribute of the sample.
_RADIUS = ("neighbors", "radius")
_SOURCE = "source"


class GroupsWriter:
    """Writes samples `sample_00000`, `sample_00001`, ... to a new store; a context manager."""

    def __init__(self, path: str | Path, kind: Kind, *, attributes: Mapping[str, Any] | None = None) -> None:
        """Create the store.

        Args:
            path: Folder of the store, which must not exist.
            kind: Mesh or particles.
            attributes: Attributes of the group.

        Raises:
            ValueError: zarr is not installed.
        """
        zarr = require("zarr")
        self.kind = kind
        self.num_samples = 0
        root = zarr.create_group(str(path), zarr_format=3)
        self._group = root.create_group(kind.group, attributes=dict(attributes or {}))

    def append(self, arrays: Sample, *, source: str, schema: Schema | None = None) -> None:
        """Add one sample.

        Args:
            arrays: Its arrays under the names of the source.
            source: Name of its source, for the record.
            schema: `describe(kind, arrays)` where the caller has it.
        """
        schema = describe(self.kind, arrays) if schema is None else schema
        sample = self._group.create_group(f"sample_{self.num_samples:05d}", attributes={_SOURCE: source})
        scalars = {}
        for name, column in schema.items():
            path = self.kind.folders.get(name, name)
            if column.axis != "sample":
                sample.create_array(path, data=np.ascontiguousarray(arrays[name]))
            elif name == _RADIUS[1] and self.kind.name == "particles":
                scalars[_RADIUS[0]] = {name: arrays[name].item()}
            else:
                sample.create_array(path, shape=(), dtype=arrays[name].dtype)[...] = arrays[name]
        for folder, attributes in scalars.items():
            sample[folder].attrs.update(attributes)
        self.num_samples += 1

    def close(self) -> None:
        """Nothing is buffered.

        Raises:
            ValueError: No sample was appended.
        """
        if not self.num_samples:
            raise ValueError("a store needs at least one sample; append one before closing")

    def __enter__(self) -> "GroupsWriter":
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store unless an exception is on its way."""
        if error is None:
            self.close()


class GroupsReader:
    """Samples of a store with one group each, in the order of their names; Zarr format 2 or 3."""

    def __init__(self, node: Any, kind: Kind, where: str) -> None:
        """List the samples.

        Args:
            node: The zarr group.
            kind: What it holds.
            where: Names it in messages.

        Raises:
            ValueError: There are none.
        """
        self._node, self._kind, self._where = node, kind, where
        self._names = sorted(node.group_keys(), key=lambda name: (len(name), name))
        self.num_samples = len(self._names)
        self.schema: Schema | None = None
        if not self._names:
            raise ValueError(f"{where} holds no samples; convert the data again, or give group=")

    def read(self, index: int, skip: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
        """Arrays of one sample.

        Raises:
            ValueError: A required array is missing.
        """
        sample = self._node[self._names[index]]
        # Opening an array costs as much as reading it: those of the sample itself are opened once, together.
        opened = dict(sample.arrays())
        arrays = {}
        for name, path in self._kind.folders.items():
            if name in skip:
                continue
            try:
                arrays[name] = np.asarray((opened.pop(path) if path in opened else sample[path])[...])
            except KeyError as error:
                raise ValueError(
                    f"{self._where}: sample {self._names[index]!r} has no array {path!r}; "
                    f"is it a store of {self._kind.name}?"
                ) from error
        arrays.update({name: np.asarray(array[...]) for name, array in opened.items() if name not in skip})
        folder, radius = _RADIUS
        if self._kind.name == "particles" and radius in sample[folder].attrs:
            arrays[radius] = np.asarray(sample[folder].attrs[radius])
        return arrays

    def source(self, index: int) -> str:
        """Name of a sample's source; its group's name where none is recorded."""
        return str(self._node[self._names[index]].attrs.get(_SOURCE, self._names[index]))
