"""Shell-summed spectra in physical wavenumber; the only module of the package that computes spectra."""

import math

import torch
from torch import Tensor, nn

from gust_torch.metrics.bands import BAND_NAMES, DEFAULT_FORCING_SHELL, band_edges, band_errors, band_labels
from gust_torch.metrics.modes import ModalSums
from gust_torch.spec import FieldSpec

__all__ = ["BAND_NAMES", "ShellSpectrum", "band_edges", "band_errors", "band_labels"]


class ShellSpectrum(nn.Module):
    """Shell-summed spectrum of a field in physical wavenumber.

    Shell i holds every mode with ``(i - 1/2) dk <= |k| < (i + 1/2) dk``, ``dk = 2 pi / max(lengths)``, so
    that shells are round in physical space on any grid, and shell 0 is the mean. All modes are kept, those in
    the corners of the spectral plane too: the sum over shells is ``mean(x**2) / 2`` (Parseval). Divide by
    ``dk`` for a density.

    Periodic axes take the FFT. Wall axes take the cosine transform (DCT-II, modes ``cos(pi m y / L)``) of the
    values at cell centers; a Chebyshev axis is first interpolated there by its own polynomial, and Parseval
    then holds for the interpolated field.

    Args:
        spec: The field's grid, boundaries and lengths.
        dtype: Floating type of the calculation, to which inputs are cast.

    Attributes:
        k: ``(n_shells,)`` wavenumbers ``i dk`` of the shells.
        dk: Shell width.
        k_max: Largest wavenumber up to which shells are complete, the smaller of the two axes' own limits.
        k_forcing: The spec's forcing wavenumber or, where it has none, ``4 dk`` (see :func:`band_errors`).
        modes_per_shell: ``(n_shells,)`` number of modes in each shell.
    """

    k: Tensor

    def __init__(self, spec: FieldSpec, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spec = spec
        self.dk = 2 * math.pi / max(spec.lengths)
        limits = [
            (n // 2) * 2 * math.pi / length if kind == "periodic" else (n - 1) * math.pi / length
            for n, length, kind in zip(spec.grid, spec.lengths, spec.boundary, strict=True)
            if n > 1  # fields in one dimension have one axis of one cell
        ]
        self.k_max = min(limits, default=0.0)
        self.k_forcing = spec.forcing_wavenumber or DEFAULT_FORCING_SHELL * self.dk
        self._modes = ModalSums(spec, self.dk, sine_walls=False, inverse_laplacian=False, dtype=dtype)
        self._kinetic = ModalSums(spec, self.dk, sine_walls=True, inverse_laplacian=True, dtype=dtype)
        self.num_shells = max(self._modes.num_shells, self._kinetic.num_shells)
        missing = self.num_shells - self._modes.num_shells
        self.modes_per_shell = nn.functional.pad(self._modes.modes_per_shell, (0, missing))
        self.register_buffer("k", self.dk * torch.arange(self.num_shells, dtype=dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Spectrum of each sample and channel.

        Args:
            x: Fields ``(b, c, h, w)``.

        Returns:
            ``(b, c, n_shells)``, whose sum over shells is ``mean(x**2) / 2``. Differentiable.

        Raises:
            ValueError: The grid is not the spec's.
        """
        self._check(x)
        return self._modes(x, self.num_shells)

    def kinetic_energy(self, omega: Tensor) -> Tensor:
        """Kinetic energy spectrum of the flow with this vorticity, ``|omega_k|^2 / (2 |k|^2)`` mode by mode.

        With walls the stream function vanishes there (no flow through them), so wall axes take the sine
        transform instead. The uniform mean flow is not in the vorticity: shell 0 is zero.

        Args:
            omega: Vorticity ``(b, c, h, w)``.

        Returns:
            ``(b, c, n_shells)``, whose sum over shells is ``mean(|u|**2) / 2``. Differentiable.

        Raises:
            ValueError: The grid is not the spec's.
        """
        self._check(omega)
        return self._kinetic(omega, self.num_shells)

    def band_errors(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """:func:`band_errors` at this grid's forcing wavenumber and isotropic limit."""
        return band_errors(reference, estimate, self.k, self.k_forcing, k_max=self.k_max)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or tuple(x.shape[-2:]) != tuple(self.spec.grid):
            raise ValueError(
                f"expected fields (b, c, {self.spec.grid[0]}, {self.spec.grid[1]}), got {tuple(x.shape)}; "
                "build the ShellSpectrum from the spec of these data"
            )
