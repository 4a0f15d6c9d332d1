"""What a pass through the data gathers: errors of each sample, sums of spectra, a few frames."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.metrics.errors import mse, vrmse
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.metrics.transform_coding import FieldTransform, gaussian_vrmse, transform_code_point
from gust_torch.spec import FieldSpec, canonical_name

ERRORS = {"mse": mse, "vrmse": vrmse}
QUANTILES = (0.05, 0.5, 0.95)
# The yardstick beside the tokens: rates of its curves, as multiples of the tokens' rate, and frames it takes.
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
NUM_FRAMES = 64
Array = NDArray[np.float64]


class ErrorSums:
    """`ERRORS` of each sample and field, four bytes each."""

    def __init__(self) -> None:
        self._errors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ERRORS}

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch ``(b, c, h, w)`` of fields and their reconstructions."""
        for name, error in ERRORS.items():
            self._errors[name].append(error(x_hat, x).float().cpu().numpy())

    def summary(self, name: str, channel: int) -> dict[str, Any]:
        """Distribution of an error of one field; the standard error takes the samples as independent."""
        errors = np.concatenate([batch[:, channel] for batch in self._errors[name]]).astype(np.float64)
        quantiles = np.quantile(errors, QUANTILES).tolist()
        return {
            "mean": float(errors.mean()),
            "std": float(errors.std()),
            "standard_error": float(errors.std()) / math.sqrt(len(errors)),
            "quantiles": {f"{q:g}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
        }


class Spectrum(NamedTuple):
    """Sample-averaged energies (n,) at wavenumbers k, of the data, the reconstruction and their difference.

    The error is equal to the reference where all is lost, twice it where the reconstruction has the right
    energy with unrelated phases.
    """

    k: Array
    reference: Array
    reconstruction: Array
    error: Array


class SpectrumSums:
    """Spectra of every field, and of the kinetic energy where velocity or vorticity is there.

    Kinetic energy comes from the two velocity components where both are channels, else from the vorticity.
    """

    def __init__(self, spec: FieldSpec, device: torch.device) -> None:
        self.shells = ShellSpectrum(spec).to(device)
        names = [canonical_name(name) for name in spec.names]
        self.vorticity = names.index("vorticity") if "vorticity" in names else None
        self.velocity = [names.index(name) for name in ("velocity_x", "velocity_y") if name in names]
        if len(self.velocity) < 2:
            self.velocity = []
        self.kinetic_source = "velocity" if self.velocity else None if self.vorticity is None else "vorticity"
        self._num_samples = 0
        # Of data, reconstruction and difference; the last row is the kinetic energy from the vorticity.
        self.sums = torch.zeros(3, spec.num_channels + 1, self.shells.num_shells, dtype=torch.float64)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch ``(b, c, h, w)`` of fields and their reconstructions."""
        self._num_samples += len(x)
        for sums, field in zip(self.sums, (x, x_hat, x_hat - x), strict=True):
            sums[:-1] += self.shells(field).sum(0).cpu().double()
            if self.kinetic_source == "vorticity":
                omega = field[:, self.vorticity, None]
                sums[-1] += self.shells.kinetic_energy(omega).sum((0, 1)).cpu().double()

    def field(self, channel: int) -> Spectrum:
        """Spectrum of one field; that of the vorticity is the enstrophy spectrum."""
        return self._mean(self.sums[:, channel])

    def kinetic_energy(self) -> Spectrum:
        """Kinetic energy spectrum; ``kinetic_source`` must not be None."""
        return self._mean(self.sums[:, self.velocity].sum(1) if self.velocity else self.sums[:, -1])

    def _mean(self, sums: Tensor) -> Spectrum:
        return Spectrum(self.shells.k.double().cpu().numpy(), *(sums / self._num_samples).numpy())


class FloorFrames:
    """Some of ``num_samples`` frames that will come, evenly spaced, as coefficients."""

    def __init__(self, spec: FieldSpec, num_samples: int, device: torch.device) -> None:
        self._transform = FieldTransform(spec, device)
        self._stride = max(1, num_samples // NUM_FRAMES)
        self._seen = 0
        self._kept: list[Tensor] = []

    def update(self, x: Tensor) -> None:
        """Take in a batch (b, c, h, w)."""
        # One frame at a time: float64 coefficients of a whole batch could fill the memory.
        self._kept += [self._transform(x[i]) for i in range(-self._seen % self._stride, len(x), self._stride)]
        self._seen += len(x)

    def floor(self, channel: int, bits_per_pixel: float) -> dict[str, float | list[float]] | None:
        """Code one half of a field's frames with the statistics of the other, and the other way round.

        Returns:
            VRMSE of the transform code and of the bound for any code of a Gaussian field, at this rate and on
            curves at `RATIOS` of it; None for fewer than two frames, a constant field, or no bits.
        """
        frames = torch.stack([coefficients[channel] for coefficients in self._kept])
        half = len(frames) // 2
        if half == 0 or bits_per_pixel <= 0 or not bool((frames[:, 1:].abs().amax(1) > 0).all()):
            return None
        rates = [ratio * bits_per_pixel for ratio in RATIOS]
        pairs = (frames[:half], frames[half:]), (frames[half:], frames[:half])
        weights = np.array([[len(test) / len(frames)] for _, test in pairs])
        code = []
        for rate in rates:
            points = [transform_code_point(*pair, rate, shells=self._transform.shells) for pair in pairs]
            code.append((weights * points).sum(0).tolist())
        bound = [point.vrmse for point in gaussian_vrmse(frames, rates)]
        now = RATIOS.index(1.0)
        return {
            "vrmse": code[now][1],
            "vrmse_of_gaussian_bound": bound[now],
            "bits_per_pixel": [bits for bits, _ in code],
            "vrmse_at_these": [vrmse for _, vrmse in code],
            "gaussian_bound_at_these": bound,
        }
