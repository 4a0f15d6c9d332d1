"""Collectives that do nothing in a single process; whether there are several is asked at each call."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch import distributed as dist


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum `x` over all processes, in place."""
    if _is_distributed():
        dist.all_reduce(x)
    return x


def reduce_and_gather(total: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Sum `total` over all processes and join their `batch` (b, ...) in rank order, in one all-reduce.

    Each process puts its batch into its own slot of zeros, so that the sum joins them.
    """
    if not _is_distributed():
        return total, batch
    slots = batch.new_zeros(dist.get_world_size(), *batch.shape)
    slots[dist.get_rank()] = batch
    flat = torch.cat([total.flatten(), slots.flatten()])
    dist.all_reduce(flat)
    summed, joined = flat.split([total.numel(), slots.numel()])
    return summed.view_as(total), joined.view_as(slots).flatten(0, 1)


def gather_batch(x: Tensor) -> Tensor:
    """Join `x` (b, ...) of all processes along the first axis, in rank order; every b must be equal.

    The order is that of one process holding the joint batch.
    """
    if not _is_distributed():
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def broadcast(x: Tensor) -> None:
    """Overwrite `x` in place with the first process's values."""
    if _is_distributed():
        dist.broadcast(x, src=0)


def touch(parameters: Iterable[Tensor]) -> Tensor:
    """0 with a gradient path to the parameters, so that DDP finds all of them in use."""
    return 0.0 * sum((p.sum() for p in parameters), start=torch.zeros(()))
