"""The advection term div(u omega) of many modes at once, split into parts that threads can share.

N_hat = (dxx - dyy)(uv) + dxy(v^2 - u^2)   (Basdevant 1983), exact on 3/2-padded transforms.

The velocity enters as one complex field z = u + iv, whose square z^2 = u^2 - v^2 + 2i uv holds both products
that Basdevant's form needs. So the four real M x M transforms of a step become one complex one each way.
Of these, the pass along x is skipped for the third of the columns that is padding, and the pass along y of a
few rows, the square, and the pass back are done while the rows lie in cache.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.fft import Transform, aligned_zeros, plan
from solvers.py2d_turbulence.grid import inverse_wavenumber_squared, padded_size
from solvers.py2d_turbulence.team import Team

Complex = NDArray[np.complexfloating]
Modes = NDArray[np.complex128]

_ROW_BYTES = 256 * 1024  # rows worked on at once: they stay in the L2 cache of a core
_ROW_PADDING = 4  # unused columns: rows a power of two apart would compete for the same cache lines


class Workspace:
    """The padded field [x, ky] between the two passes; columns ky = 0, 1, ..., zeros, ..., -2, -1."""

    def __init__(self, num_points: int, dtype: np.dtype) -> None:
        self.num_points = num_points
        self.padded = padded_size(num_points)
        storage = aligned_zeros((self.padded, self.padded + _ROW_PADDING), dtype)
        self.field: Complex = storage[:, : self.padded]

    def padding(self, start: int, stop: int) -> Complex:
        """Return the view of the columns that must be zero, in some rows."""
        half = self.num_points // 2
        return self.field[start:stop, half : self.padded - half + 1]


class RowBlock:
    """Some rows of the workspace: transforms them to physical space, squares them and transforms them back.

    Args:
        workspace: the padded field.
        start: first row.
        stop: row after the last one.
        physical: (height, m) buffer of the thread, height >= stop - start. Transforms out of place are
            faster than those in place.
    """

    def __init__(self, workspace: Workspace, start: int, stop: int, physical: Complex) -> None:
        rows, z = workspace.field[start:stop], physical[: stop - start]
        self._inverse = plan(rows, z, axis=1, inverse=True)
        self._forward = plan(z, rows, axis=1, inverse=False)
        self._physical = z

    def multiply(self) -> None:
        """[x, ky] of z -> [x, ky] of z^2, in place; the padding must be zero and comes out as garbage."""
        self._inverse()
        np.square(self._physical, out=self._physical)
        self._forward()


class ColumnSlab:
    """The columns ky in [start, stop) and -ky of the workspace, and a tile (plus, minus) for their modes.

    The columns -ky are transformed with the opposite sign of the exponent. The mode (-kx, -ky) then stands at
    the same place in `minus` as (kx, ky) in `plus`.
    """

    def __init__(self, workspace: Workspace, start: int, stop: int, tile: Complex) -> None:
        self.start, self.stop = start, stop
        width, padded = stop - start, workspace.padded
        self.plus, self.minus = tile[0, :width], tile[1, :width]
        columns = workspace.field[:, start:stop]
        self._to_modes: list[Transform] = [plan(columns, self.plus.T, axis=0, inverse=False)]
        self._to_columns: list[Transform] = [plan(self.plus.T, columns, axis=0, inverse=True)]
        first = max(start, 1)  # ky = 0 is its own mirror
        if first < stop:
            mirror = workspace.field[:, padded - stop + 1 : padded - first + 1]
            target = self.minus[first - start :][::-1].T
            self._to_modes.append(plan(mirror, target, axis=0, inverse=True))
            self._to_columns.append(plan(target, mirror, axis=0, inverse=False))

    def to_modes(self) -> None:
        """Workspace columns -> tile."""
        for transform in self._to_modes:
            transform()
        if self.start == 0:
            self.minus[0, 0] = self.plus[0, 0]
            self.minus[0, 1:] = self.plus[0, :0:-1]

    def to_columns(self) -> None:
        """Tile -> workspace columns."""
        for transform in self._to_columns:
            transform()


def row_ranges(workspace: Workspace) -> list[tuple[int, int]]:
    """Return the [start, stop) of the row blocks, the same for any number of threads."""
    return even_ranges(workspace.padded, max(1, _ROW_BYTES // workspace.field.strides[0]))


def even_ranges(length: int, largest: int) -> list[tuple[int, int]]:
    """Cut 0..length into the fewest [start, stop) of at most `largest`, in an even number where that fits.

    They are nearly equal in width: threads then have the same to do, and FFTW few cases to plan.
    """
    count = -(-length // largest)
    count += count % 2 if count < length else 0
    bounds = [length * part // count for part in range(count + 1)]
    return list(pairwise(bounds))


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
        """Square u + iv in this rank's rows."""
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

    def __call__(self, omega: Modes) -> Modes:
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
