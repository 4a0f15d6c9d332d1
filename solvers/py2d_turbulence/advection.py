"""The advection term div(u omega) of many modes at once, split into parts that threads can share.

N_hat = (dxx - dyy)(uv) + dxy(v^2 - u^2)   (Basdevant 1983), exact on 3/2-padded transforms.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.fft import aligned_zeros
from solvers.py2d_turbulence.grid import inverse_wavenumber_squared
from solvers.py2d_turbulence.team import Team
from solvers.py2d_turbulence.transforms import ColumnSlab, RowBlock, Workspace, even_ranges, row_ranges

Complex = NDArray[np.complex128]


class Advection:
    """Turns omega_hat into N_hat: `spread` all slabs, wait, `multiply`, wait, `gather` all slabs.

    Modes are indexed [ky, kx] here, with 0 <= ky < n/2, and a slab is a range of ky.

    Args:
        num_points: n.
        dtype: complex type of the transforms.
        team: the threads; each owns the slabs `slabs[rank]`.
        kernels: `kernels_numpy` or `kernels_numba`.
    """

    def __init__(self, num_points: int, dtype: np.dtype, team: Team, kernels: ModuleType) -> None:
        self.num_points = num_points
        self._kernels = kernels
        self._team = team
        workspace = Workspace(num_points, dtype)
        self.to_velocity = 1.0 / num_points**2
        self.from_square = 0.25 * (num_points / workspace.padded) ** 2
        self._inverse = np.ascontiguousarray(inverse_wavenumber_squared(num_points)[:, :-1].T)
        self._blocks: list[list[RowBlock]] = []
        self._padding = []
        for part in _share(row_ranges(workspace), team.size):
            height = max((stop - start for start, stop in part), default=0)
            physical = aligned_zeros((height, workspace.padded), dtype)
            self._blocks.append([RowBlock(workspace, *rows, physical) for rows in part])
            self._padding.append(workspace.padding(*(part[0][0], part[-1][1]) if part else (0, 0)))
        self.slabs: list[list[Slab]] = []
        for part in _share(even_ranges(num_points // 2, kernels.SLAB_WIDTH), team.size):
            width = max((stop - start for start, stop in part), default=0)
            tile = aligned_zeros((2, width, workspace.padded), dtype)
            self.slabs.append(
                [Slab(ColumnSlab(workspace, *modes, tile), self._inverse, kernels) for modes in part]
            )

    def multiply(self, rank: int) -> None:
        """Squares u + iv in this rank's rows."""
        self._padding[rank].fill(0)
        for block in self._blocks[rank]:
            block.multiply()

    def spread(self, slab: Slab, omega: NDArray[np.inexact]) -> None:
        """Put the velocity of the slab's modes, `kernels.pairs` of (w, n), into its columns."""
        kernels = self._kernels
        kernels.velocity(slab.plus, slab.minus, omega, slab.inverse, slab.start, self.to_velocity)
        slab.columns.to_columns()

    def gather(self, slab: Slab, out: NDArray[np.inexact]) -> None:
        """Write N_hat of the slab's modes, `kernels.pairs` of (w, n), from its squared columns."""
        slab.columns.to_modes()
        self._kernels.nonlinear(slab.plus, slab.minus, out, slab.start, self.from_square)

    def __call__(self, omega: Complex) -> Complex:
        """Return N_hat (n/2, n) of omega_hat (n/2, n), both [ky, kx]."""
        result = np.zeros_like(omega)
        pairs = self._kernels.pairs

        def evaluate(rank: int) -> None:
            for slab in self.slabs[rank]:
                self.spread(slab, pairs(omega[slab.start : slab.stop]))
            self._team.wait()
            self.multiply(rank)
            self._team.wait()
            for slab in self.slabs[rank]:
                self.gather(slab, pairs(result[slab.start : slab.stop]))

        self._team.run(evaluate)
        return result


class Slab:
    """A column slab with its arrays in the form that the kernels take."""

    def __init__(self, columns: ColumnSlab, inverse: NDArray[np.float64], kernels: ModuleType) -> None:
        self.columns = columns
        self.start, self.stop = columns.start, columns.stop
        self.plus, self.minus = kernels.pairs(columns.plus), kernels.pairs(columns.minus)
        self.inverse = inverse[self.start : self.stop]


def _share(ranges: list[tuple[int, int]], num_parts: int) -> list[list[tuple[int, int]]]:
    """Split a list into consecutive parts of nearly equal length, some of them possibly empty."""
    bounds = [len(ranges) * part // num_parts for part in range(num_parts + 1)]
    return [ranges[start:stop] for start, stop in pairwise(bounds)]
