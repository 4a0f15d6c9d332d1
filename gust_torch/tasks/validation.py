"""Sums over a validation pass, over each sample once: means, spectra and code counts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler

from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.models.distributed import all_reduce_sum


def num_true_samples(loader: Any) -> int:
    """Count the samples of a loader that no other process has.

    Where a set does not divide among processes, `DistributedSampler` fills up with samples from its start:
    they are the last ones of a process.
    """
    if isinstance(loader, (list, tuple)):
        return sum(num_true_samples(one) for one in loader)
    total = len(loader.dataset)
    sampler = loader.sampler
    if not isinstance(sampler, DistributedSampler):
        return total
    return max(0, -(-(total - sampler.rank) // sampler.num_replicas))


def take(batch: Any, count: int) -> Any:
    """Return the first samples of a batch: a tensor, a dataclass or a named tuple of tensors, or graphs."""
    if isinstance(batch, torch.Tensor):
        return batch[:count]
    if isinstance(batch, tuple):
        return type(batch)(*(value[:count] if isinstance(value, torch.Tensor) else value for value in batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        cut = {name: value[:count] for name, value in values.items() if isinstance(value, torch.Tensor)}
        return dataclasses.replace(batch, **cut)
    return type(batch).from_data_list(batch.to_data_list()[:count])


class MeanSums:
    """Weighted sums of named values; all processes add the same names."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, torch.Tensor], weight: int) -> None:
        """Add means of a batch, that of `weight` samples or points; a weight of 0 adds the names alone."""
        for name, value in values.items():
            mean = value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)
            mean = mean if weight else torch.zeros_like(mean)
            entry = torch.stack([weight * mean, torch.full_like(mean, weight)])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def reduce(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Means over everything that all processes added, float32."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = all_reduce_sum(torch.stack([self._sums[name].to(device) for name in names]))
        return {name: (total / weight).float() for name, (total, weight) in zip(names, sums, strict=True)}


class ValidationSums:
    """Sums spectra and code counts over batches, and over processes once all are in.

    Args:
        spectrum: Shell spectrum on the grid of the data.
        vocab_sizes: Codebook size of each scale.
    """

    def __init__(self, spectrum: ShellSpectrum, vocab_sizes: Sequence[int]) -> None:
        self.spectrum = spectrum
        self.vocab_sizes = tuple(vocab_sizes)
        self._spectra: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    def reset(self) -> None:
        """Forget everything added."""
        self._spectra = self._counts = None

    @torch.no_grad()
    def add(
        self, x: torch.Tensor, x_hat: torch.Tensor, indices: Sequence[torch.Tensor], *, counts: bool = True
    ) -> None:
        """Add references and estimates (b, c, h, w) and indices (b, h_k, w_k) of these, if they count."""
        spectra = torch.stack([self.spectrum(x.float()).sum(0), self.spectrum(x_hat.float()).sum(0)])
        uses = torch.cat(
            [torch.bincount(i.flatten(), minlength=n) for i, n in zip(indices, self.vocab_sizes, strict=True)]
        )
        if not counts:
            spectra, uses = torch.zeros_like(spectra), torch.zeros_like(uses)
        self._spectra = spectra if self._spectra is None else self._spectra + spectra
        self._counts = uses if self._counts is None else self._counts + uses

    def reduce(self) -> None:
        """Sum over all processes; call once, after the last `add`."""
        assert self._spectra is not None
        assert self._counts is not None
        all_reduce_sum(self._spectra)
        all_reduce_sum(self._counts)

    def band_errors(self) -> torch.Tensor:
        """Relative errors of the mean spectrum in the three bands, averaged over channels: (3,)."""
        assert self._spectra is not None
        return self.spectrum.band_errors(self._spectra[0], self._spectra[1]).mean(0)

    def code_counts(self) -> list[torch.Tensor]:
        """How often each code was used: (K_k,) for each scale."""
        assert self._counts is not None
        return list(self._counts.split(self.vocab_sizes))

    def perplexity_ratios(self) -> list[torch.Tensor]:
        """exp(entropy of the code distribution) / K_k for each scale; 1 when all codes are used equally."""
        return [perplexity(counts) / counts.numel() for counts in self.code_counts()]


def perplexity(counts: torch.Tensor) -> torch.Tensor:
    """exp(−Σ p ln p) of the distribution that counts (k,) describe: scalar between 1 and k."""
    p = counts.double() / counts.sum().clamp(min=1)
    return torch.special.entr(p).sum().exp().float()
