"""Distributes the frames of a block over the outputs of the splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gust_torch.convert.plan import Plan
from gust_torch.convert.reader import Block


@dataclass(frozen=True)
class Part:
    """What one output gets of a block, in the form `HDF5Writer.append` takes.

    Attributes:
        fields: name -> (frames, x, y[, c]) float32.
        times: (frames,) float64.
        trajectories: (frames,) int32, ids in that output.
    """

    fields: Mapping[str, np.ndarray]
    times: np.ndarray
    trajectories: np.ndarray


def route(plan: Plan, index: int, block: Block, split: str) -> Part | None:
    """Return the frames of a block of source `index` that belong to `split`; None where there are none."""
    ids = plan.trajectory_ids(index, split)[block.span.first : block.span.last]
    chosen = ids >= 0
    if not chosen.any():
        return None
    return Part(
        fields={name: _flatten(values, chosen) for name, values in block.fields.items()},
        times=block.times[chosen].reshape(-1),
        trajectories=np.repeat(ids[chosen], block.times.shape[1]).astype(np.int32),
    )


def _flatten(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, t, ...) -> (frames, ...) of the chosen trajectories, without a copy where they are neighbors."""
    positions = np.flatnonzero(chosen)
    first, last = int(positions[0]), int(positions[-1]) + 1
    kept = values[first:last] if last - first == len(positions) else values[chosen]
    return kept.reshape(-1, *values.shape[2:])
