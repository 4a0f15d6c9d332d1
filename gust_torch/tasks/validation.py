"""Means over a validation pass, over each sample once, whatever the number of processes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler

from gust_torch.models.distributed import all_reduce_sum


def num_true_samples(loader: Any) -> int:
    """Count the samples of a loader that no other process has.

    Where a set does not divide among processes, `DistributedSampler` fills up with samples from its start:
    they are the last ones of a process.
    """
    sampler, total = loader.sampler, len(loader.dataset)
    if not isinstance(sampler, DistributedSampler):
        return total
    return len(range(sampler.rank, total, sampler.num_replicas))


def take(batch: Any, count: int) -> Any:
    """Return the first samples of a batch: a tensor, a named tuple of tensors, or graphs."""
    if isinstance(batch, torch.Tensor):
        return batch[:count]
    if isinstance(batch, tuple):
        return type(batch)(*(value[:count] if isinstance(value, torch.Tensor) else value for value in batch))
    return type(batch).from_data_list(batch.to_data_list()[:count])


class MeanSums:
    """Weighted sums of named tensors; all processes add the same names and shapes."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, torch.Tensor], weight: int) -> None:
        """Add means of a batch, that of `weight` samples or points; a weight of 0 adds the names alone."""
        for name, value in values.items():
            mean = value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)
            entry = torch.cat([weight * mean.flatten(), mean.new_tensor([weight])])
            entry = entry if weight else torch.zeros_like(entry)  # also where the mean is NaN
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry
            self._shapes[name] = value.shape

    def reduce(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Means over everything that all processes added, float32."""
        names = sorted(self._sums)
        parts = [self._sums[name] for name in names]
        sums = all_reduce_sum(torch.cat([part.to(device) for part in parts])).split([*map(len, parts)])
        means = [(total[:-1] / total[-1]).float() for total in sums]
        return {name: mean.view(self._shapes[name]) for name, mean in zip(names, means, strict=True)}


def perplexity(counts: torch.Tensor) -> torch.Tensor:
    """exp(−Σ p ln p) of the distribution that counts (k,) describe: scalar between 1 and k."""
    p = counts.double() / counts.sum()
    return torch.special.entr(p).sum().exp().float()
