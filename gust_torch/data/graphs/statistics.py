"""Which fields the items of a graph dataset have, and their mean, standard deviation and bounding box."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from gust_torch.data.statistics import CONSTANT_TOLERANCE, evenly_spaced
from gust_torch.graph_spec import GraphSpec

if TYPE_CHECKING:
    from torch_geometric.data import Data

# Arrays that are no fields on the nodes, however many rows they have.
OTHERS = ("pos", "positions", "laplacian_data")
PREFIXES = ("edge_", "cell_")


class Items(Protocol):
    """A dataset of items."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int) -> "Data":
        """One item."""
        ...


@dataclass(frozen=True)
class GraphStatistics:
    """Over the nodes of many items.

    Attributes:
        mean: (c,) float32.
        std: (c,) float32; 1 for constant channels.
        lower: Corner of the box of all positions, (d,) float32.
        upper: The opposite corner.
    """

    mean: Tensor
    std: Tensor
    lower: Tensor
    upper: Tensor


def graph_spec(item: "Data", fields: list[str] | None = None) -> GraphSpec:
    """Spec of the node fields of an item.

    Args:
        item: Any item of the dataset.
        fields: Names of node fields; by default all that are floating-point. Items with `positions` are
            moving, and their fields are those with a time axis.

    Raises:
        ValueError: A field is not there, or there is none at all.
    """
    moving = "positions" in item
    lead = tuple(item.positions.shape[:2]) if moving else (item.num_nodes,)
    found = {
        name: value.shape[len(lead) :].numel()
        for name, value in item.to_dict().items()
        if isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and tuple(value.shape[: len(lead)]) == lead
        and name not in OTHERS
        and not name.startswith(PREFIXES)
    }
    names = list(found) if fields is None else fields
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise ValueError(
            f"no node field {', '.join(missing) or 'at all'} in the items, which have "
            f"{', '.join(found) or 'none'}; name others, or give a transform that makes them (PoissonField)"
        )
    return GraphSpec(tuple(names), tuple(found[name] for name in names), int(item.pos.shape[1]), moving)


def graph_statistics(items: Items, spec: GraphSpec) -> GraphStatistics:
    """Statistics over at most 256 evenly spaced items, each node and time counted once, in float64."""
    sums = torch.zeros(3, spec.num_channels, dtype=torch.float64)
    lower = torch.full((spec.num_dims,), torch.inf)
    upper = -lower
    shift = None  # the first item's mean, so that squares do not cancel when means are large
    for index in evenly_spaced(len(items)).tolist():
        item = items[index]
        values = torch.cat(
            [
                item[name].double().reshape(-1, n)
                for name, n in zip(spec.fields, spec.components, strict=True)
            ],
            dim=1,
        )
        shift = values.mean(0) if shift is None else shift
        deviations = values - shift
        sums += torch.stack([torch.full_like(shift, len(values)), deviations.sum(0), (deviations**2).sum(0)])
        positions = (item.positions if spec.moving else item.pos).reshape(-1, spec.num_dims).float()
        lower, upper = torch.minimum(lower, positions.amin(0)), torch.maximum(upper, positions.amax(0))
    assert shift is not None
    offset = sums[1] / sums[0]
    std = (sums[2] / sums[0] - offset**2).clamp(min=0).sqrt()
    mean = shift + offset
    std[std <= CONSTANT_TOLERANCE * mean.abs()] = 1.0
    return GraphStatistics(mean.float(), std.float(), lower, upper)
