"""Sums over a validation pass: spectra and code counts."""

from collections.abc import Sequence

import torch

from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.models.distributed import all_reduce_sum


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
        self._spectra = None
        self._counts = None

    @torch.no_grad()
    def add(self, x: torch.Tensor, x_hat: torch.Tensor, indices: Sequence[torch.Tensor]) -> None:
        """Add references and estimates (b, c, h, w) and the estimates' indices (b, h_k, w_k)."""
        spectra = torch.stack([self.spectrum(x.float()).sum(0), self.spectrum(x_hat.float()).sum(0)])
        counts = torch.cat(
            [torch.bincount(i.flatten(), minlength=n) for i, n in zip(indices, self.vocab_sizes, strict=True)]
        )
        self._spectra = spectra if self._spectra is None else self._spectra + spectra
        self._counts = counts if self._counts is None else self._counts + counts

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
