"""Running sums over a pass through the data; only errors are kept for each sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.metrics.errors import mse, vrmse
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec, canonical_name

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ErrorSummary:
    """Distribution of a per-sample error over the samples.

    Attributes:
        mean: Mean over samples.
        std: Standard deviation over samples.
        quantiles: The 5 %, 50 % and 95 % quantiles.
    """

    mean: float
    std: float
    quantiles: tuple[float, ...]


class ErrorSums:
    """MSE and VRMSE of each sample and field, summarized; they take eight bytes a sample and field."""

    names = ("mse", "vrmse")

    def __init__(self) -> None:
        self._errors: list[NDArray[np.float32]] = []

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch ``(b, c, h, w)`` of fields and their reconstructions."""
        self._errors.append(torch.stack([mse(x_hat, x), vrmse(x_hat, x)]).float().cpu().numpy())

    def summary(self, name: str, channel: int) -> ErrorSummary:
        """Summary of ``"mse"`` or ``"vrmse"`` of one field."""
        which = self.names.index(name)
        errors = np.concatenate([batch[which, :, channel] for batch in self._errors]).astype(np.float64)
        quantiles = tuple(np.quantile(errors, QUANTILES).tolist())
        return ErrorSummary(float(errors.mean()), float(errors.std()), quantiles)


@dataclass(frozen=True)
class MeanSpectrum:
    """Sample-averaged spectra of the reference, the reconstruction and their difference.

    Attributes:
        k: (n,) shell wavenumbers.
        reference: (n,) energy in each shell.
        reconstruction: (n,) the same of the reconstruction.
        error: (n,) of the difference; equal to the reference where all is lost, twice it where the
            reconstruction has the right energy with unrelated phases.
    """

    k: NDArray[np.float64]
    reference: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    error: NDArray[np.float64]


class SpectrumSums:
    """Spectra of every field, and of the kinetic energy where velocity or vorticity is there.

    Kinetic energy comes from the two velocity components where both are channels, else from the vorticity.

    Args:
        spec: The fields.
        device: Where batches will be.
    """

    def __init__(self, spec: FieldSpec, device: torch.device) -> None:
        self.spectrum = ShellSpectrum(spec).to(device)
        self.num_samples = 0
        names = [canonical_name(name) for name in spec.names]
        self.vorticity = names.index("vorticity") if "vorticity" in names else None
        has_velocity = {"velocity_x", "velocity_y"} <= set(names)
        self.velocity = (names.index("velocity_x"), names.index("velocity_y")) if has_velocity else None
        self.fields = torch.zeros(3, spec.num_channels, self.spectrum.num_shells, dtype=torch.float64)
        self.kinetic = torch.zeros(3, self.spectrum.num_shells, dtype=torch.float64)

    @property
    def kinetic_source(self) -> str | None:
        """What the kinetic energy comes from: ``"velocity"``, ``"vorticity"``, or None without either."""
        if self.velocity is not None:
            return "velocity"
        return "vorticity" if self.vorticity is not None else None

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch ``(b, c, h, w)`` of fields and their reconstructions."""
        self.num_samples += len(x)
        for i, field in enumerate((x, x_hat, x_hat - x)):
            self.fields[i] += self.spectrum(field).sum(0).cpu().double()
            if self.kinetic_source == "vorticity":
                omega = field[:, self.vorticity, None]
                self.kinetic[i] += self.spectrum.kinetic_energy(omega).sum((0, 1)).cpu().double()

    def field(self, channel: int) -> MeanSpectrum:
        """Spectrum of one field; that of the vorticity is the enstrophy spectrum."""
        return self._mean(self.fields[:, channel])

    def kinetic_energy(self) -> MeanSpectrum:
        """Kinetic energy spectrum; ``kinetic_source`` must not be None."""
        sums = self.kinetic if self.velocity is None else self.fields[:, list(self.velocity)].sum(1)
        return self._mean(sums)

    def _mean(self, sums: Tensor) -> MeanSpectrum:
        reference, reconstruction, error = (sums / self.num_samples).numpy()
        return MeanSpectrum(self.spectrum.k.double().cpu().numpy(), reference, reconstruction, error)


class CodeSums:
    """Occurrences of each code of each scale.

    Args:
        vocab_sizes: Codebook size of each scale.
    """

    def __init__(self, vocab_sizes: Sequence[int]) -> None:
        self.counts = [torch.zeros(size, dtype=torch.int64) for size in vocab_sizes]

    def update(self, indices: Sequence[Tensor]) -> None:
        """Add the tokens ``(b, h_k, w_k)`` of every scale of a batch."""
        for counts, index in zip(self.counts, indices, strict=True):
            counts += torch.bincount(index.flatten().cpu(), minlength=len(counts))
