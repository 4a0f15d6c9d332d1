"""Shell-summed spectra in physical wavenumber; the only module of the package that computes spectra."""

import math

import torch
from torch import Tensor, nn

from gust_torch.metrics.transforms import chebyshev_to_uniform, cosine_matrix, sine_matrix
from gust_torch.spec import FieldSpec

BAND_NAMES = ("large", "inertial", "small")
DEFAULT_FORCING_SHELL = 4


class _ModalSums(nn.Module):
    """One transform of a field, and the sums of its modal energies over shells.

    Args:
        spec: Grid, boundaries and lengths of the field.
        shell_width: Width dk of a shell.
        wall_modes: ``"cosine"`` or ``"sine"``, the modes of a wall axis.
        inverse_laplacian: Divide each mode by |k|^2 (k = 0 dropped), which turns enstrophy into kinetic energy.
        dtype: Floating type of the calculation.
    """

    wall_h: Tensor | None
    wall_w: Tensor | None
    shell: Tensor
    weight: Tensor

    def __init__(
        self,
        spec: FieldSpec,
        shell_width: float,
        *,
        wall_modes: str,
        inverse_laplacian: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        is_wall = [kind == "wall" for kind in spec.boundary]
        # A real transform halves one periodic axis: the last one there is.
        half_axis = 1 if not is_wall[1] else (0 if not is_wall[0] else None)
        self.half_axis: int | None = half_axis
        self.full_fft = not any(is_wall)

        wavenumbers, multiplicities = [], []
        for axis, (n, length) in enumerate(zip(spec.grid, spec.lengths, strict=True)):
            matrix = None
            if is_wall[axis]:
                first = 0 if wall_modes == "cosine" else 1
                k = (math.pi / length) * torch.arange(first, first + n, dtype=torch.float64)
                multiplicity = torch.ones(n, dtype=torch.float64)
                matrix = cosine_matrix(n) if wall_modes == "cosine" else sine_matrix(n)
                if axis == 1 and spec.grid_y == "chebyshev":
                    matrix = matrix @ chebyshev_to_uniform(n)
                matrix = matrix.to(dtype)
            elif axis == half_axis:
                k = (2 * math.pi / length) * torch.arange(n // 2 + 1, dtype=torch.float64)
                multiplicity = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
                multiplicity[0] = 1.0
                if n % 2 == 0:
                    multiplicity[-1] = 1.0
            else:
                k = (2 * math.pi / length) * n * torch.fft.fftfreq(n, dtype=torch.float64)
                multiplicity = torch.ones(n, dtype=torch.float64)
            self.register_buffer(("wall_h", "wall_w")[axis], matrix, persistent=False)
            wavenumbers.append(k)
            multiplicities.append(multiplicity)

        k_squared = (wavenumbers[0] ** 2)[:, None] + (wavenumbers[1] ** 2)[None, :]
        num_modes = multiplicities[0][:, None] * multiplicities[1][None, :]
        weight = 0.5 * num_modes
        if inverse_laplacian:
            weight = torch.where(k_squared > 0, weight / torch.where(k_squared > 0, k_squared, 1.0), 0.0)
        # The small shift makes modes that lie exactly between two shells go up, whatever the round-off of the lengths.
        shell = torch.floor(k_squared.sqrt() / shell_width + 0.5 + 1e-9).long()
        self.register_buffer("shell", shell.flatten(), persistent=False)
        self.register_buffer("weight", weight.flatten().to(dtype), persistent=False)
        self.num_shells = int(shell.max()) + 1
        self.modes_per_shell = torch.zeros(self.num_shells, dtype=torch.float64).index_add(
            0, self.shell, num_modes.flatten()
        )

    def power(self, x: Tensor) -> Tensor:
        """Squared magnitudes of the modes of ``(b, c, h, w)``, as ``(b, c, num_modes)``."""
        if self.wall_w is not None:
            x = x @ self.wall_w.T
        if self.wall_h is not None:
            x = self.wall_h @ x
        if self.half_axis is None:
            return x.square().flatten(2)
        if self.full_fft:
            modes = torch.fft.rfft2(x, norm="forward")
        else:
            modes = torch.fft.rfft(x, dim=self.half_axis - 2, norm="forward")
        return (modes.real.square() + modes.imag.square()).flatten(2)

    def forward(self, x: Tensor, num_shells: int) -> Tensor:
        """Energy in each shell, ``(b, c, num_shells)``."""
        # Autocast would run the wall transforms in half precision, whose round-off would bury the spectrum's tail.
        with torch.autocast(x.device.type, enabled=False):
            modal = self.power(x.to(self.weight.dtype)) * self.weight
        sums = modal.new_zeros((*modal.shape[:2], num_shells))
        return sums.index_add(2, self.shell, modal)


class ShellSpectrum(nn.Module):
    """Shell-summed spectrum of a field in physical wavenumber.

    Shell i holds every mode with ``(i - 1/2) dk <= |k| < (i + 1/2) dk``, ``dk = 2 pi / max(lengths)``, so that shells
    are round in physical space on any grid, and shell 0 is the mean. All modes are kept, those in the corners of the
    spectral plane too: the sum over shells is exactly ``mean(x**2) / 2`` (Parseval). Divide by ``dk`` for a density.

    Periodic axes take the FFT. Wall axes take the cosine transform (DCT-II, modes ``cos(pi m y / L)``) of the values
    at cell centres; a Chebyshev axis is first interpolated there by its own polynomial, and Parseval then holds
    for the interpolated field.

    Args:
        spec: The field's grid, boundaries and lengths.
        dtype: Floating type of the calculation, to which inputs are cast.

    Attributes:
        k: ``(n_shells,)`` wavenumbers ``i dk`` of the shells.
        dk: Shell width.
        k_max: Largest wavenumber at which shells are complete, the smaller of the two axes' own limits.
        k_forcing: The spec's forcing wavenumber or, where it has none, ``4 dk``: a quarter of the longest side, which
            is the solver's default forcing in turbulence and the depth of a 4:1 convection cell.
        modes_per_shell: ``(n_shells,)`` number of modes in each shell.
    """

    k: Tensor

    def __init__(self, spec: FieldSpec, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.spec = spec
        self.dk = 2 * math.pi / max(spec.lengths)
        self.k_max = min(
            (n // 2) * 2 * math.pi / length if kind == "periodic" else (n - 1) * math.pi / length
            for n, length, kind in zip(spec.grid, spec.lengths, spec.boundary, strict=True)
        )
        self.k_forcing = spec.forcing_wavenumber or DEFAULT_FORCING_SHELL * self.dk
        self._modes = _ModalSums(spec, self.dk, wall_modes="cosine", inverse_laplacian=False, dtype=dtype)
        self._kinetic = _ModalSums(spec, self.dk, wall_modes="sine", inverse_laplacian=True, dtype=dtype)
        self.num_shells = max(self._modes.num_shells, self._kinetic.num_shells)
        self.modes_per_shell = nn.functional.pad(
            self._modes.modes_per_shell, (0, self.num_shells - self._modes.num_shells)
        )
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
        """Kinetic energy spectrum of the flow that has this vorticity: |omega_k|^2 / (2 |k|^2) mode by mode.

        With walls the stream function vanishes there (no flow through them), so wall axes take the sine transform
        instead. The uniform mean flow is not in the vorticity: shell 0 is zero.

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


def band_edges(k_forcing: float, k_max: float) -> tuple[float, float, float]:
    """Upper ends of the bands: large scales ``0 < k < k_f``, inertial up to 2/3 of ``k_max``, small up to ``k_max``."""
    top = 2.0 * k_max / 3.0
    return min(k_forcing, top), top, k_max


def band_errors(
    reference: Tensor,
    estimate: Tensor,
    k: Tensor,
    forcing_wavenumber: float | None,
    *,
    k_max: float | None = None,
) -> Tensor:
    """Relative spectral error ``sum |E_est - E_ref| / sum E_ref`` in three bands of shells.

    Large scales ``0 < k < k_f``; inertial ``k_f <= k < 2/3 k_max``; small scales ``2/3 k_max <= k <= k_max``, the top
    third. The mean (k = 0) and the corners beyond ``k_max`` belong to no band. A band wholly lost scores 1.

    Args:
        reference: Shell spectra ``(..., n_shells)``.
        estimate: Shell spectra of the same shape.
        k: ``(n_shells,)`` shell wavenumbers, equally spaced from 0.
        forcing_wavenumber: k_f; ``None`` means ``4 dk`` as in :class:`ShellSpectrum`.
        k_max: Isotropic limit of the grid (``ShellSpectrum.k_max``). ``None`` means ``k[-1] / sqrt(2)``, which is it
            on a square periodic grid.

    Returns:
        ``(..., 3)``; NaN for a band without shells (a grid too small for it).
    """
    spacing = float(k[1])
    limit = float(k[-1]) / math.sqrt(2.0) if k_max is None else k_max
    forcing = DEFAULT_FORCING_SHELL * spacing if forcing_wavenumber is None else forcing_wavenumber
    # Round-off in k must not move a shell to the other side of an edge.
    slack = 1e-3 * spacing
    large_end, inertial_end, small_end = band_edges(forcing, limit)
    bands = (
        (k > slack) & (k < large_end - slack),
        (k > slack) & (k >= large_end - slack) & (k < inertial_end - slack),
        (k > slack) & (k >= inertial_end - slack) & (k <= small_end + slack),
    )
    difference = (estimate - reference).abs()
    floor = torch.finfo(reference.dtype).tiny
    errors = []
    for inside in bands:
        error = difference[..., inside].sum(-1) / reference[..., inside].sum(-1).clamp_min(floor)
        errors.append(error if bool(inside.any()) else torch.full_like(error, math.nan))
    return torch.stack(errors, dim=-1)
