"""Shell-summed spectra in physical wavenumber; the only module of the package that computes spectra."""

import math

import torch
from torch import Tensor, nn

from gust_torch.metrics.bands import band_errors
from gust_torch.metrics.transforms import chebyshev_to_uniform, cosine_matrix, sine_matrix
from gust_torch.spec import FieldSpec

DEFAULT_FORCING_SHELL = 4


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
        k_forcing: The spec's forcing wavenumber or, where it has none, ``4 dk``, a quarter of the longest
            side: the solver's default forcing in turbulence and the depth of a 4:1 convection cell.
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
        self._modes = _ModalSums(spec, self.dk, kinetic=False, dtype=dtype)
        self._kinetic = _ModalSums(spec, self.dk, kinetic=True, dtype=dtype)
        self.num_shells = max(self._modes.num_shells, self._kinetic.num_shells)
        self.register_buffer("k", self.dk * torch.arange(self.num_shells, dtype=dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Spectra ``(b, c, n_shells)`` of fields ``(b, c, h, w)``; the shells sum to ``mean(x**2) / 2``.

        Raises:
            ValueError: The grid is not the spec's.
        """
        return self._sums(self._modes, x)

    def kinetic_energy(self, omega: Tensor) -> Tensor:
        """Kinetic energy spectrum of the flow with this vorticity, ``|omega_k|^2 / (2 |k|^2)`` mode by mode.

        With walls the stream function vanishes there (no flow through them), so wall axes take the sine
        transform instead. The uniform mean flow is not in the vorticity: shell 0 is zero.

        Args:
            omega: Vorticity ``(b, c, h, w)``.

        Returns:
            ``(b, c, n_shells)``; the shells sum to ``mean(|u|**2) / 2``.

        Raises:
            ValueError: The grid is not the spec's.
        """
        return self._sums(self._kinetic, omega)

    def band_errors(self, reference: Tensor, estimate: Tensor) -> Tensor:
        """Relative errors ``(..., 3)`` of spectra ``(..., n_shells)``; see `metrics.bands.band_errors`."""
        return band_errors(reference, estimate, self.k.to(reference.device), self.k_forcing, self.k_max)

    def _sums(self, modes: "_ModalSums", x: Tensor) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[-2:]) != tuple(self.spec.grid):
            raise ValueError(
                f"expected fields (b, c, {self.spec.grid[0]}, {self.spec.grid[1]}), got {tuple(x.shape)}"
            )
        # Autocast would run the wall transforms in half precision and bury the tail in round-off.
        with torch.autocast(x.device.type, enabled=False):
            modal = modes.power(x.to(modes.weight.dtype)) * modes.weight
        sums = modal.new_zeros((len(modal), self.num_shells)).index_add(1, modes.shell, modal)
        return sums.unflatten(0, x.shape[:2])


class _ModalSums(nn.Module):
    """The transform of a field, with shell and weight of each mode.

    For kinetic energy, wall axes are expanded in sines, which vanish at the walls, and each mode is divided
    by |k|^2, k = 0 dropped: enstrophy becomes kinetic energy.
    """

    wall_h: Tensor | None
    wall_w: Tensor | None
    shell: Tensor
    weight: Tensor

    def __init__(self, spec: FieldSpec, shell_width: float, *, kinetic: bool, dtype: torch.dtype) -> None:
        super().__init__()
        periodic = [axis for axis in (0, 1) if spec.boundary[axis] == "periodic"]
        self.full_fft = len(periodic) == 2
        # A real transform halves one periodic axis, the last one there is.
        self.half_axis = max(periodic, default=None)
        for axis, name in enumerate(("wall_h", "wall_w")):
            matrix = None if axis in periodic else _wall_matrix(spec, axis, kinetic).to(dtype)
            self.register_buffer(name, matrix, persistent=False)
        (k_h, count_h), (k_w, count_w) = (
            _axis_modes(spec, axis, sines=kinetic, half=axis == self.half_axis) for axis in (0, 1)
        )
        k_squared = (k_h**2)[:, None] + (k_w**2)[None, :]
        num_modes = count_h[:, None] * count_w[None, :]
        # Here the scaling of the transform costs nothing.
        weight = 0.5 * num_modes / math.prod(spec.grid[axis] for axis in periodic) ** 2
        if kinetic:
            weight = torch.where(k_squared > 0, weight / k_squared, 0.0)
        # The shift sends modes midway between two shells upward, whatever the round-off of the lengths.
        shell = torch.floor(k_squared.sqrt() / shell_width + 0.5 + 1e-9).long().flatten()
        self.register_buffer("shell", shell, persistent=False)
        self.register_buffer("weight", weight.flatten().to(dtype), persistent=False)
        self.num_shells = int(shell.max()) + 1

    def power(self, x: Tensor) -> Tensor:
        """Squared magnitudes of the unscaled modes of ``(b, c, h, w)``, flattened to ``(b c, num_modes)``."""
        if self.wall_w is not None:
            x = x @ self.wall_w.T
        if self.wall_h is not None:
            x = self.wall_h @ x
        if self.half_axis is None:
            return x.square().flatten(2).flatten(0, 1)
        modes = torch.fft.rfft2(x) if self.full_fft else torch.fft.rfft(x, dim=self.half_axis - 2)
        # One pass less over memory than adding two squares, which costs as much as the transform.
        return torch.addcmul(modes.real.square(), modes.imag, modes.imag).flatten(2).flatten(0, 1)


def _axis_modes(spec: FieldSpec, axis: int, *, sines: bool, half: bool) -> tuple[Tensor, Tensor]:
    """Wavenumbers of the stored modes of one axis, and how many modes each of them stands for; float64."""
    n, length = spec.grid[axis], spec.lengths[axis]
    if spec.boundary[axis] == "wall":
        k = (math.pi / length) * (torch.arange(n, dtype=torch.float64) + sines)
        return k, torch.ones_like(k)
    spacing = 2 * math.pi / length
    if not half:
        k = spacing * n * torch.fft.fftfreq(n, dtype=torch.float64)
        return k, torch.ones_like(k)
    k = spacing * torch.arange(n // 2 + 1, dtype=torch.float64)
    count = torch.full_like(k, 2.0)
    # k = 0 and, on an even grid, Nyquist are their own conjugates.
    count[0] = 1.0
    if n % 2 == 0:
        count[-1] = 1.0
    return k, count


def _wall_matrix(spec: FieldSpec, axis: int, sines: bool) -> Tensor:
    """Matrix ``(n, n)`` from the values along a wall axis to its modes; float64."""
    n = spec.grid[axis]
    matrix = sine_matrix(n) if sines else cosine_matrix(n)
    return matrix @ chebyshev_to_uniform(n) if axis == 1 and spec.grid_y == "chebyshev" else matrix
