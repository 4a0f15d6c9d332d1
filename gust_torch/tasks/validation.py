"""Means over a validation pass, over each sample once, whatever the number of processes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from gust_torch.metrics.spectra import ShellSpectrum
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
    if isinstance(batch, Tensor):
        return batch[:count]
    if isinstance(batch, tuple):
        return type(batch)(*(value[:count] if isinstance(value, Tensor) else value for value in batch))
    return type(batch).from_data_list(batch.to_data_list()[:count])


class MeanSums:
    """Weighted sums of named tensors; all processes add the same names and shapes."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """Add means of a batch, that of `weight` samples or points; a weight of 0 adds the names alone."""
        for name, value in values.items():
            mean = value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)
            entry = torch.cat([weight * mean.flatten(), mean.new_tensor([weight])])
            entry = entry if weight else torch.zeros_like(entry)  # also where the mean is NaN
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry
            self._shapes[name] = value.shape

    def reduce(self, device: torch.device) -> dict[str, Tensor]:
        """Means over everything that all processes added, float32."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        parts = [self._sums[name] for name in names]
        sums = all_reduce_sum(torch.cat([part.to(device) for part in parts])).split([*map(len, parts)])
        means = [(total[:-1] / total[-1]).float() for total in sums]
        return {name: mean.view(self._shapes[name]) for name, mean in zip(names, means, strict=True)}


class ValidationSums:
    """Mean spectra, and how often each code is used in a frame.

    Args:
        spectrum: Shell spectrum on the grid of the data.
        vocab_sizes: Codebook size of each scale.
    """

    def __init__(self, spectrum: ShellSpectrum, vocab_sizes: Sequence[int]) -> None:
        self.spectrum = spectrum
        self.vocab_sizes = vocab_sizes
        self.means = MeanSums()

    def add(self, x: Tensor, x_hat: Tensor, indices: Sequence[Tensor], *, counts: bool = True) -> None:
        """Add references and estimates (b, c, h, w) and indices (b, h_k, w_k) of these, if they count."""
        pairs = zip(indices, self.vocab_sizes, strict=True)
        values = {
            "spectra": torch.stack([self.spectrum(part.float()).mean(0) for part in (x, x_hat)]),
            "codes": torch.cat([torch.bincount(i.flatten(), minlength=n) for i, n in pairs]) / len(x),
        }
        self.means.add(values, len(x) if counts else 0)

    def reduce(self, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Errors of the mean spectrum in the three bands (3,), uses of the codes (K_k,) for each scale."""
        means = self.means.reduce(device)
        bands = self.spectrum.band_errors(*means["spectra"]).mean(0)
        return bands, list(means["codes"].split(list(self.vocab_sizes)))


def perplexity(counts: Tensor) -> Tensor:
    """exp(−Σ p ln p) of the distribution that counts (k,) describe: scalar between 1 and k."""
    p = counts.double() / counts.sum()
    return torch.special.entr(p).sum().exp().float()
