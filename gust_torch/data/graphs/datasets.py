"""Map-style datasets over Zarr stores of meshes and particles."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from gust_torch.data.graphs import require
from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind
from gust_torch.data.graphs.stores import Reader, open_reader

if TYPE_CHECKING:
    from torch_geometric.data import Data

CACHE_BYTES = 64 << 20


class GraphZarrDataset(Dataset["Data"]):
    """What both datasets share: lazy, each process opens the store itself, chunks are cached."""

    kind: ClassVar[Kind]

    def __init__(
        self,
        path: str | Path,
        group: str | None = None,
        *,
        transform: "Callable[[Data], Data] | None" = None,
        cache_bytes: int = CACHE_BYTES,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the store and read its offsets.

        Args:
            path: Folder of the store, or an fsspec URL such as "s3://bucket/darcy2d_mesh_train.zarr".
            group: Group that holds the samples; by default that of the kind.
            transform: Applied to each item, as torch_geometric's transforms are.
            cache_bytes: Bound of the decoded chunks that each process keeps; 0 for none.
            storage_options: For the URL's file system.

        Raises:
            ValueError: No such store or group, another kind or layout, or packages are missing.
        """
        require("torch_geometric")
        self.path, self.group = str(path), self.kind.group if group is None else group
        self.transform = transform
        self._options: dict[str, Any] = {"cache_bytes": cache_bytes, "storage_options": storage_options}
        self._opened: tuple[int, Reader] | None = None
        self._length = self.reader.num_samples

    @property
    def reader(self) -> Reader:
        """The store, opened by the process that asks."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_reader(self.path, self.kind, self.group, **self._options)
        return self._opened[1]

    def source(self, index: int) -> str:
        """Name of the file that sample `index` was made from."""
        return self.reader.source(self._position(index))

    def numbers(self) -> dict[str, np.ndarray]:
        """Return the numbers that each sample has (`dt`, `radius`, ...): name -> (num_samples,) float64."""
        _, schema = self.reader.read(0)
        others = frozenset(name for name, column in schema.items() if column.axis != "sample")
        names = sorted(schema.keys() - others)
        rows = [self.reader.read(index, others)[0] for index in range(len(self) if names else 0)]
        return {name: np.array([float(row[name]) for row in rows]) for name in names}

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._length

    def __getitem__(self, index: int) -> "Data":
        """One sample, see `items.make_item`; negative indices count from the end."""
        from gust_torch.data.graphs.items import make_item

        unused = frozenset(PARTICLES.csr if self.kind is PARTICLES else ())  # the edges say the same
        item = make_item(self.kind, *self.reader.read(self._position(index), unused))
        return item if self.transform is None else self.transform(item)

    def _position(self, index: int) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        return index % self._length

    def __getstate__(self) -> dict[str, Any]:
        """Without the open store."""
        return {**self.__dict__, "_opened": None}


class MeshZarrDataset(GraphZarrDataset):
    """Meshes: items with pos, edge_index, face, laplacian (sparse CSR) and the fields of the store."""

    kind = MESH


class ParticleZarrDataset(GraphZarrDataset):
    """Particles: items with pos, positions and velocities (n, times, d), edge_index, radius where known."""

    kind = PARTICLES
