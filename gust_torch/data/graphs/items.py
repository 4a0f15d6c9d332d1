"""Samples as torch_geometric items that batch correctly."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData, DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, GlobalStorage, NodeStorage

from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind, Sample, Schema, is_node_list

# torch says once a process that CSR tensors are in beta state, and are not checked: the reader did that.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


class Laplacian:
    """A sparse CSR matrix (n, n): a call gives the tensor, whose attributes and products it has itself."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def __call__(self) -> Tensor:
        """Return the sparse tensor."""
        return self._matrix

    def __getattr__(self, name: str) -> Any:
        if name == "_matrix":  # a copy in the making
            raise AttributeError(name)
        return getattr(self._matrix, name)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._matrix @ other

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let functions of torch take it as the tensor."""
        plain = [arg() if isinstance(arg, Laplacian) else arg for arg in args]
        return function(*plain, **(kwargs or {}))


class GraphData(Data):
    """A graph whose batches are disjoint unions.

    `edge_index` (2, 2e), `face` (3 or 4, cells) and lists of nodes (`boundary_nodes`, ...) count nodes and
    are shifted in a batch; everything else is concatenated along its first axis. torch_geometric itself would
    shift any field whose name contains "index" or "batch".

    The Laplacian is kept in three plain tensors, `laplacian_data`, `laplacian_indices` and
    `laplacian_indptr`, since sparse ones can be neither saved, shared between processes nor taken out of a
    batch.
    """

    @property
    def laplacian(self) -> Laplacian:
        """Sparse CSR (n, n), block-diagonal in a batch."""
        indptr = self.laplacian_indptr
        if "ptr" in self:  # a batch has each part's pointers, n + 1 of them
            inner = torch.ones_like(indptr, dtype=torch.bool)
            inner[self.ptr[1:-1] + torch.arange(1, len(self.ptr) - 1, device=indptr.device)] = False
            indptr = indptr[inner]
        size = (int(self.num_nodes), int(self.num_nodes))
        parts = (indptr, self.laplacian_indices, self.laplacian_data)
        return Laplacian(torch.sparse_csr_tensor(*parts, size=size, check_invariants=False))

    @laplacian.setter
    def laplacian(self, matrix: Tensor | Laplacian) -> None:
        """Keep a sparse matrix (n, n) in any layout."""
        matrix = matrix.to_sparse_csr()
        self.laplacian_data, self.laplacian_indices = matrix.values(), matrix.col_indices()
        self.laplacian_indptr = matrix.crow_indices()

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 if key in ("edge_index", "face") else 0

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "laplacian_indptr":
            return len(self.laplacian_data)
        counts_nodes = key in ("edge_index", "face", "laplacian_indices") or (
            isinstance(value, Tensor) and not value.is_floating_point() and is_node_list(key, value.ndim)
        )
        return self.num_nodes if counts_nodes else 0


# So that items, which hold plain tensors only, can be loaded by `torch.load(weights_only=True)`.
torch.serialization.add_safe_globals(
    [GraphData, Data, BaseData, BaseStorage, NodeStorage, GlobalStorage, DataEdgeAttr, DataTensorAttr]
)


def make_item(kind: Kind, arrays: Sample, schema: Schema) -> GraphData:
    """Return the item of a sample of some schema; the CSR matrix of particles is not needed.

    It has `pos` (n, d), `edge_index` (2, e') int64 with each pair both ways, and the fields by their names:
    (n, ...) for node fields, (n, times, ...) for time-dependent ones, (e', ...) for edges, of which both ways
    have the same, (cells, ...) for cells, int64 for lists of nodes, (1,) for scalars. Meshes have `face`
    (3 or 4, cells) int64 and `laplacian` (n, n) sparse CSR; particles have `positions` and `velocities`
    (n, times, d), and `pos` is the position at time 0.
    """
    if kind is MESH:
        item = GraphData(
            pos=torch.from_numpy(arrays["coords"]),
            face=_indices(arrays["cells"]).T.contiguous(),
            laplacian_data=torch.from_numpy(arrays["laplacian_data"]),
            laplacian_indices=_indices(arrays["laplacian_indices"]),
            laplacian_indptr=_indices(arrays["laplacian_indptr"]),
        )
    else:
        positions, velocities = (_node_first(arrays[name]) for name in ("positions", "velocities"))
        item = GraphData(pos=positions[:, 0].contiguous(), positions=positions, velocities=velocities)
    item.edge_index, rows = both_ways(arrays["edges"], item.num_nodes)
    for name, column in schema.items():
        if name in kind.arrays or name not in arrays:
            continue
        if column.axis == "step":
            item[name] = _node_first(arrays[name])
        elif column.axis == "edge":
            values = torch.from_numpy(arrays[name])
            item[name] = torch.cat((values, values)) if rows is None else values[rows]
        elif column.axis == name:
            item[name] = _indices(arrays[name])
        else:
            item[name] = torch.from_numpy(np.atleast_1d(arrays[name]))
    if kind is PARTICLES and "radius" in item:
        item.radius = item.radius.to(torch.float32)
    return item


def both_ways(edges: np.ndarray, num_nodes: int) -> tuple[Tensor, Tensor | None]:
    """Every pair of `edges` (e, 2) in both directions, once each: (2, e') int64.

    And (e',) int64: the row of `edges` that each of them comes from, that of the given direction before that
    of the other; None where that is all of them, and all of them again (sorted pairs i < j, as in shards).
    """
    pairs = _indices(edges).T
    codes = edges[:, 0].astype(np.int64) * num_nodes + edges[:, 1]
    if (edges[:, 0] < edges[:, 1]).all() and (codes[1:] > codes[:-1]).all():
        return torch.cat((pairs, pairs.flip(0)), dim=1), None
    both = np.concatenate([codes, edges[:, 1].astype(np.int64) * num_nodes + edges[:, 0]])
    unique, chosen = np.unique(both, return_index=True)
    return torch.from_numpy(np.stack(np.divmod(unique, num_nodes))), torch.from_numpy(chosen % len(edges))


def _node_first(array: np.ndarray) -> Tensor:
    """Return (times, n, ...) -> (n, times, ...), contiguous; (n, d) -> (n, 1, d)."""
    rows = array[None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(np.swapaxes(rows, 0, 1)))


def _indices(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64, copy=False))
