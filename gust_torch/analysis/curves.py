"""Spectra as they are drawn: densities over wavenumber, on shells wide enough for an elongated domain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gust_torch.analysis.sums import MeanSpectrum
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec


@dataclass(frozen=True)
class WavenumberScales:
    """Scales that all spectra of one data set share.

    Attributes:
        dk: Shell width.
        k_max: End of the complete shells, where plots end.
        k_forcing: End of the large-scale band.
        forcing_known: Whether ``k_forcing`` is the data's forcing, or a default.
        merged: The ratio of the domain's sides. From shell ``merged`` on, so many shells are drawn as one:
            modes along the short side alone lie that far apart, and single shells would draw a saw.
    """

    dk: float
    k_max: float
    k_forcing: float
    forcing_known: bool
    merged: int

    @classmethod
    def of(cls, shells: ShellSpectrum, spec: FieldSpec) -> "WavenumberScales":
        """Scales of a spectrum and its data."""
        return cls(
            dk=shells.dk,
            k_max=shells.k_max,
            k_forcing=shells.k_forcing,
            forcing_known=spec.forcing_wavenumber is not None,
            merged=max(1, round(max(spec.lengths) / min(spec.lengths))),
        )


@dataclass(frozen=True)
class Curves:
    """Spectral densities to draw; shells without modes or energy are left out.

    Attributes:
        k: (n,) wavenumbers.
        reference: (n,) energy per wavenumber.
        reconstruction: (n,) the same of the reconstruction.
        error: (n,) the same of the difference.
    """

    k: NDArray[np.float64]
    reference: NDArray[np.float64]
    reconstruction: NDArray[np.float64]
    error: NDArray[np.float64]


def curves(spectrum: MeanSpectrum, scales: WavenumberScales) -> Curves:
    """Densities of a shell-summed spectrum up to ``k_max``, without the mean."""
    last = int(np.floor(scales.k_max / scales.dk + 1e-6))
    edges = np.concatenate([np.arange(1, scales.merged), np.arange(scales.merged, last + 2, scales.merged)])
    starts, widths = edges[:-1], np.diff(edges)

    def block_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(values[: edges[-1]], starts) if len(starts) else values[:0]

    reference = block_sums(spectrum.reference)
    shown = reference > 0
    width = (widths * scales.dk)[shown]
    return Curves(
        k=(block_sums(spectrum.k) / widths)[shown],
        reference=reference[shown] / width,
        reconstruction=block_sums(spectrum.reconstruction)[shown] / width,
        error=block_sums(spectrum.error)[shown] / width,
    )
