"""Grids, meshes and particles as one thing: values at points, several samples behind one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from gust_torch.graph_spec import GraphSpec
from gust_torch.spec import FieldSpec

if TYPE_CHECKING:
    from torch_geometric.data import Data

    Batch: TypeAlias = Tensor | Data

Spec = FieldSpec | GraphSpec


@dataclass(frozen=True)
class Points:
    """Values at points, ragged over the samples.

    Attributes:
        coordinates: (n, d) in physical units, the points of sample 0 first.
        values: (n, c) in physical units.
        sample: (n,) int64, the sample of each point, never decreasing.
        num_samples: b; samples without points are allowed.
    """

    coordinates: Tensor
    values: Tensor
    sample: Tensor
    num_samples: int

    def subset(self, share: float, generator: torch.Generator) -> Points:
        """Return a random part of the points, in their order; a point is kept with probability `share`."""
        if share >= 1:
            return self
        kept = (torch.rand(len(self.sample), generator=generator) < share).to(self.sample.device)
        return Points(self.coordinates[kept], self.values[kept], self.sample[kept], self.num_samples)


def num_dims(spec: Spec) -> int:
    """Dimensions d of the coordinates: those of the graphs; of grids two, or one where the grid is (h, 1)."""
    if isinstance(spec, GraphSpec):
        return spec.num_dims
    return 1 if spec.grid[1] == 1 else 2


def grid_coordinates(spec: FieldSpec) -> Tensor:
    """Positions of the grid points, (h * w, d), measured from the low end of each axis.

    Periodic axes have points at i L / n, wall axes at the cell centers (i + 1/2) L / n, Chebyshev axes at the
    Gauss nodes L (1 - cos(pi (i + 1/2) / n)) / 2, walls excluded.
    """
    axes = []
    for axis, (n, length, boundary) in enumerate(zip(spec.grid, spec.lengths, spec.boundary, strict=True)):
        i = torch.arange(n, dtype=torch.float64)
        if axis == 1 and spec.grid_y == "chebyshev":
            axes.append(0.5 * length * (1 - torch.cos(torch.pi * (i + 0.5) / n)))
        else:
            axes.append((i + (0.5 if boundary == "wall" else 0.0)) * length / n)
    return torch.cartesian_prod(*axes)[:, : num_dims(spec)].float()


def grid_points(x: Batch, spec: FieldSpec) -> Points:
    """Points of fields x (b, c, h, w).

    Raises:
        ValueError: If `x` is not on the channels and grid of `spec`.
    """
    b, c, h, w = check_fields(x, spec).shape
    return Points(
        coordinates=grid_coordinates(spec).to(x.device).repeat(b, 1),
        values=x.movedim(1, -1).reshape(-1, c),
        sample=torch.arange(b, device=x.device).repeat_interleave(h * w),
        num_samples=b,
    )


def check_fields(x: Batch, spec: FieldSpec) -> Tensor:
    """Return fields (b, c, h, w) after comparing them with what a model was built for.

    Raises:
        ValueError: They are on other channels or another grid.
    """
    expected = (spec.num_channels, *spec.grid)
    found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or found[1:] != expected:
        raise ValueError(
            f"this model takes fields {list(spec.names)} as (b, {', '.join(map(str, expected))}), got "
            f"{found}; choose the same fields and grid as in training"
        )
    return x


def graph_points(batch: Batch, spec: GraphSpec) -> tuple[Points, Tensor]:
    """Points and edges of an item or batch of torch_geometric.

    Where the spec says `moving`, each time is a sample: those of graph 0 come first, in time order. The edges
    of an item, which belong to its time 0, are used at all of its times.

    Returns:
        The points, and the edges (2, e) between them.

    Raises:
        ValueError: A field is missing or has another shape.
    """
    if isinstance(batch, Tensor):
        raise ValueError("this model takes torch_geometric batches, got a tensor; it was trained on graphs")
    nodes = batch.pos.shape[0]
    times = batch.positions.shape[1] if spec.moving else 1
    columns = []
    for name, n in zip(spec.fields, spec.components, strict=True):
        if name not in batch or batch[name].numel() != nodes * times * n:
            found = tuple(batch[name].shape) if name in batch else "none"
            raise ValueError(
                f"this model takes a field {name!r} with {n} components at {nodes} nodes and {times} times, "
                f"got {found}; choose the fields and the transform of training"
            )
        columns.append(batch[name].reshape(nodes, times, n).float())
    positions = batch.positions if spec.moving else batch.pos[:, None]
    graph = getattr(batch, "batch", None)
    graph = batch.pos.new_zeros(nodes, dtype=torch.int64) if graph is None else graph
    steps = torch.arange(times, device=graph.device)
    # (n, times) ids and the stable order that puts sample by sample
    sample = (graph[:, None] * times + steps).flatten()
    order = sample.argsort(stable=True)
    place = order.argsort()
    edges = place[(batch.edge_index[:, :, None] * times + steps).flatten(1)]
    points = Points(
        coordinates=positions.reshape(-1, spec.num_dims)[order].float(),
        values=torch.cat(columns, dim=-1).reshape(-1, spec.num_channels)[order],
        sample=sample[order],
        num_samples=(getattr(batch, "num_graphs", None) or 1) * times,
    )
    return points, edges


def pad(rows: Tensor, sample: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Rows (n, ...) of ragged samples as (b, n_max, ...), zeros behind, and where they are: (b, n_max) bool.

    `padded[mask]` gives the rows back in their order.
    """
    counts = torch.bincount(sample, minlength=num_samples)
    width = int(counts.max()) if len(sample) else 0
    mask = torch.arange(width, device=rows.device) < counts[:, None]
    padded = rows.new_zeros(num_samples, width, *rows.shape[1:])
    padded[mask] = rows
    return padded, mask
