"""Modes of a field: the transform along each axis, wavenumbers, sums of modal energies over shells."""

import math

import torch
from torch import Tensor, nn

from gust_torch.metrics.transforms import chebyshev_to_uniform, cosine_matrix, sine_matrix
from gust_torch.spec import FieldSpec


class ModalSums(nn.Module):
    """One transform of a field, and the sums of its modal energies over shells.

    Args:
        spec: Grid, boundaries and lengths of the field.
        shell_width: Width dk of a shell.
        sine_walls: Expand wall axes in sines, which vanish at the walls, instead of cosines.
        inverse_laplacian: Divide each mode by |k|^2 and drop k = 0: enstrophy becomes kinetic energy.
        dtype: Floating type of the calculation.

    Attributes:
        num_shells: One more than the index of the outermost shell.
        modes_per_shell: ``(num_shells,)`` float64.
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
        sine_walls: bool,
        inverse_laplacian: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        periodic = [axis for axis in (0, 1) if spec.boundary[axis] == "periodic"]
        self.full_fft = len(periodic) == 2
        # A real transform halves one periodic axis, the last one there is.
        self.half_axis = max(periodic, default=None)
        for axis, name in enumerate(("wall_h", "wall_w")):
            matrix = None if axis in periodic else _wall_matrix(spec, axis, sine_walls).to(dtype)
            self.register_buffer(name, matrix, persistent=False)

        (k_h, count_h), (k_w, count_w) = (
            _axis_modes(spec, axis, sine_walls=sine_walls, half=axis == self.half_axis) for axis in (0, 1)
        )
        k_squared = (k_h**2)[:, None] + (k_w**2)[None, :]
        num_modes = count_h[:, None] * count_w[None, :]
        # Here the scaling of the transform costs nothing.
        weight = 0.5 * num_modes / math.prod(spec.grid[axis] for axis in periodic) ** 2
        if inverse_laplacian:
            weight = torch.where(k_squared > 0, weight / k_squared, 0.0)
        # The shift sends modes midway between two shells upward, whatever the round-off of the lengths.
        shell = torch.floor(k_squared.sqrt() / shell_width + 0.5 + 1e-9).long().flatten()
        self.register_buffer("shell", shell, persistent=False)
        self.register_buffer("weight", weight.flatten().to(dtype), persistent=False)
        self.num_shells = int(shell.max()) + 1
        self.modes_per_shell = torch.zeros(self.num_shells, dtype=torch.float64)
        self.modes_per_shell.index_add_(0, shell, num_modes.flatten())

    def power(self, x: Tensor) -> Tensor:
        """Squared magnitudes of the unscaled modes of ``(b, c, h, w)``, flattened to ``(b c, num_modes)``."""
        if self.wall_w is not None:
            x = x @ self.wall_w.T
        if self.wall_h is not None:
            x = self.wall_h @ x
        if self.half_axis is None:
            return x.square().flatten(2).flatten(0, 1)
        if self.full_fft:
            modes = torch.fft.rfft2(x)
        else:
            modes = torch.fft.rfft(x, dim=self.half_axis - 2)
        # One pass less over memory than adding two squares, which costs as much as the transform.
        return torch.addcmul(modes.real.square(), modes.imag, modes.imag).flatten(2).flatten(0, 1)

    def forward(self, x: Tensor, num_shells: int) -> Tensor:
        """Energy in each shell, ``(b, c, num_shells)``."""
        # Autocast would run the wall transforms in half precision and bury the tail in round-off.
        with torch.autocast(x.device.type, enabled=False):
            modal = self.power(x.to(self.weight.dtype)) * self.weight
        sums = modal.new_zeros((len(modal), num_shells)).index_add(1, self.shell, modal)
        return sums.unflatten(0, x.shape[:2])


def _axis_modes(spec: FieldSpec, axis: int, *, sine_walls: bool, half: bool) -> tuple[Tensor, Tensor]:
    """Wavenumbers of the stored modes of one axis, and how many modes each of them stands for; float64."""
    n, length = spec.grid[axis], spec.lengths[axis]
    if spec.boundary[axis] == "wall":
        first = 1 if sine_walls else 0
        k = (math.pi / length) * torch.arange(first, first + n, dtype=torch.float64)
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


def _wall_matrix(spec: FieldSpec, axis: int, sine_walls: bool) -> Tensor:
    """``(n, n)`` float64 matrix from the values along a wall axis to its modes."""
    n = spec.grid[axis]
    matrix = sine_matrix(n) if sine_walls else cosine_matrix(n)
    if axis == 1 and spec.grid_y == "chebyshev":
        matrix = matrix @ chebyshev_to_uniform(n)
    return matrix
