"""The padded transforms of a step, as one complex field and without the parts that are known to be zero.

The velocity enters as one complex field z = u + iv, whose square z^2 = u^2 - v^2 + 2i uv holds both products
that Basdevant's form needs. So the four real M x M transforms of a step become one complex one each way.
Of these, the pass along x is skipped for the third of the columns that is padding, and the pass along y of a
few rows, the square, and the pass back are done while the rows lie in cache.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from solvers.py2d_turbulence.fft import Transform, aligned_zeros, plan
from solvers.py2d_turbulence.grid import padded_size

Complex = NDArray[np.complexfloating]

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
    """Cuts 0..length into the fewest [start, stop) of at most `largest`, in an even number where that fits.

    They are nearly equal in width: threads then have the same to do, and FFTW few cases to plan.
    """
    count = -(-length // largest)
    count += count % 2 if count < length else 0
    bounds = [length * part // count for part in range(count + 1)]
    return list(pairwise(bounds))
