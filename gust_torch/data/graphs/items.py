"""Samples as torch_geometric items that batch correctly."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from gust_torch.data.graphs.schema import MESH, PARTICLES, Kind, Sample, Schema

# torch says once a process that CSR tensors are in beta state, and are not checked: the converter did that.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")

# Arrays that particle items do not show: the edges say the same.
UNUSED = {MESH.name: frozenset[str](), PARTICLES.name: frozenset({"indices", "indptr"})}


class GraphData(Data):
    """A graph whose batches are disjoint unions.

    `edge_index` (2, 2e) and `face` (3 or 4, cells) count nodes and are shifted in a batch; `laplacian`,
    sparse CSR (n, n), becomes block-diagonal; everything else is concatenated along its first axis.
    torch_geometric itself would shift any field whose name contains "index" or "batch".
    """

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "laplacian":
            return (0, 1)
        return 1 if key in ("edge_index", "face") else 0

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return self.num_nodes if key in ("edge_index", "face") else 0


def make_item(kind: Kind, arrays: Sample, schema: Schema) -> GraphData:
    """Return the item of a sample.

    Args:
        kind: Mesh or particles.
        arrays: Its arrays, without those in `UNUSED`.
        schema: `describe(kind, arrays)`.

    Returns:
        `pos` (n, d), `edge_index` (2, e') int64 with each pair both ways, and the fields under their names:
        (n, ...) for node fields, (n, times, ...) for time-dependent ones, (1,) for scalars. Meshes have
        `face` (3 or 4, cells) int64 and `laplacian` (n, n) sparse CSR; particles have `positions` and
        `velocities` (n, times, d), and `pos` is the position at time 0.
    """
    item = _mesh(arrays) if kind is MESH else _particles(arrays)
    for name, column in schema.items():
        if name in kind.axes:
            continue
        if column.axis == "step":
            item[name] = _node_first(arrays[name])
        else:
            item[name] = torch.from_numpy(np.atleast_1d(arrays[name]))
    if kind is PARTICLES and "radius" in item:
        item.radius = item.radius.to(torch.float32)
    return item


def _mesh(arrays: Sample) -> GraphData:
    coords = torch.from_numpy(arrays["coords"])
    laplacian = torch.sparse_csr_tensor(
        _indices(arrays["laplacian_indptr"]),
        _indices(arrays["laplacian_indices"]),
        torch.from_numpy(arrays["laplacian_data"]),
        size=(len(coords), len(coords)),
        check_invariants=False,
    )
    return GraphData(
        pos=coords,
        edge_index=both_ways(arrays["edges"], len(coords)),
        face=_indices(arrays["cells"]).T.contiguous(),
        laplacian=laplacian,
    )


def _particles(arrays: Sample) -> GraphData:
    positions = _node_first(arrays["positions"])
    return GraphData(
        pos=positions[:, 0].contiguous(),
        positions=positions,
        velocities=_node_first(arrays["velocities"]),
        edge_index=both_ways(arrays["edges"], len(positions)),
    )


def both_ways(edges: np.ndarray, num_nodes: int) -> Tensor:
    """(2, e') int64 with every pair in both directions, once each.

    Args:
        edges: (e, 2), pairs in any order; the sorted pairs i < j of the shards take the short way.
        num_nodes: n.
    """
    pairs = _indices(edges).T
    codes = edges[:, 0].astype(np.int64) * num_nodes + edges[:, 1]
    if (edges[:, 0] < edges[:, 1]).all() and (codes[1:] > codes[:-1]).all():
        return torch.cat((pairs, pairs.flip(0)), dim=1)
    undirected: Tensor = to_undirected(pairs.contiguous(), num_nodes=num_nodes)
    return undirected


def _node_first(array: np.ndarray) -> Tensor:
    """Return (times, n, ...) -> (n, times, ...), contiguous; (n, d) -> (n, 1, d)."""
    rows = array[None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(np.swapaxes(rows, 0, 1)))


def _indices(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64, copy=False))
