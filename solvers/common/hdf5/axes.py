"""What the coordinates and metadata of a file say about its domain: boundaries, grid, lengths."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

BOUNDARIES = ("periodic", "wall")
GRIDS = ("uniform", "chebyshev")

# float32 coordinates of a grid of 4096 points are exact to about 5e-4 of a spacing.
COORDINATE_TOLERANCE = 1e-2
# Of a stated length, in spacings: half of what one more or one less grid point makes is clear enough.
LENGTH_TOLERANCE = 0.25


def domain(
    coordinates: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> tuple[tuple[str, str], str, tuple[float, float]]:
    """Return the boundaries, the kind of grid along y and the domain lengths (L_x, L_y).

    Absent metadata mean: periodic axes, a uniform grid, lengths from the coordinates. Files of the JAX
    code do not name their grid: where `grid_y` is absent and y holds Chebyshev nodes, the y axis is a
    Chebyshev one between walls.

    Args:
        coordinates: `x` (H,) and `y` (W,).
        metadata: Attributes of /metadata; read are `boundary_x|y`, `grid_y` and `length_x|y`.

    Raises:
        ValueError: Coordinates that are not those of the grid, or lengths that contradict them.
    """
    for axis in ("x", "y"):
        if axis not in coordinates:
            raise ValueError(f"coordinates/{axis} is missing; write the grid points' positions there")
    chebyshev = "grid_y" not in metadata and chebyshev_span(coordinates["y"]) is not None
    grid_y = str(metadata.get("grid_y", "chebyshev" if chebyshev else "uniform"))
    boundary = (
        str(metadata.get("boundary_x", "periodic")),
        str(metadata.get("boundary_y", "wall" if chebyshev else "periodic")),
    )
    lengths = (
        _length(coordinates["x"], boundary[0], "uniform", "x", metadata.get("length_x")),
        _length(coordinates["y"], boundary[1], grid_y, "y", metadata.get("length_y")),
    )
    return boundary, grid_y, lengths


def _length(nodes: np.ndarray, boundary: str, grid: str, axis: str, stated: Any) -> float:
    """Return the stated length of an axis, which its nodes must allow; theirs where none is stated."""
    if stated is None:
        return axis_length(nodes, boundary, grid, axis)
    try:
        length = float(stated)
    except (TypeError, ValueError):
        length = math.nan
    if not 0 < length < math.inf:
        raise ValueError(f"metadata length_{axis}: expected a positive number, found {stated!r}; correct it")
    if len(nodes) == 1:
        return length
    found = axis_length(nodes, boundary, grid, axis)
    spacing = float(nodes[-1] - nodes[0]) / (len(nodes) - 1)
    # Uniform nodes between walls may hold both walls, one or none.
    points = len(nodes) + np.arange(-1, 2) if boundary == "wall" and grid == "uniform" else [found / spacing]
    if np.abs(np.asarray(points) * spacing - length).min() > LENGTH_TOLERANCE * spacing:
        ends = " (do they hold both ends of the period? Then leave out the last)"
        raise ValueError(
            f"metadata length_{axis} {length:g} contradicts coordinates/{axis}, {len(nodes)} nodes that are "
            f"{spacing:g} apart, a {boundary} axis of length {found:g}"
            f"{ends if boundary == 'periodic' else ''}; correct one of them"
        )
    return length


def axis_length(nodes: np.ndarray, boundary: str, grid: str, axis: str) -> float:
    """Domain length along an axis from its nodes x_i, i = 0 .. n-1, spaced by dx.

    periodic: n dx. Uniform wall: n dx where the nodes are cell centers (x_0 = dx/2, from a wall at 0),
    x_{n-1} - x_0 where they include the walls. Chebyshev: Gauss nodes leave out the walls,
    x_{n-1} - x_0 = L cos(pi / 2n), which is inverted; Lobatto nodes include them. The nodes tell which they
    are.

    Raises:
        ValueError: Fewer than two nodes, nodes that do not increase, or nodes that are not those of the grid.
    """
    x = np.asarray(nodes, dtype=np.float64)
    n = x.size
    if x.ndim != 1 or n < 2 or not np.all(np.diff(x) > 0):
        remedy = f"correct them (a single one needs the metadata attribute length_{axis})"
        raise ValueError(f"coordinates/{axis} must hold two or more increasing values; {remedy}")
    if grid == "chebyshev":
        length = chebyshev_span(x)
        if length is None:
            raise ValueError(
                f"coordinates/{axis} are not Chebyshev nodes although grid_y says so; correct it"
            )
        return length
    span = float(x[-1] - x[0])
    dx = span / (n - 1)
    if float(np.abs((x - x[0]) / dx - np.arange(n)).max()) > COORDINATE_TOLERANCE * max(1, n / 4096):
        found = f"coordinates/{axis} are not equidistant although the grid is uniform"
        raise ValueError(f"{found}; correct them, or interpolate the fields")
    cell_centered = abs(x[0] - dx / 2) < COORDINATE_TOLERANCE * dx
    return n * dx if boundary == "periodic" or cell_centered else span


def chebyshev_span(nodes: np.ndarray) -> float | None:
    """Distance of the walls if these are Chebyshev nodes, Gauss or Lobatto, between them; else None."""
    x = np.asarray(nodes, dtype=np.float64)
    n = x.size
    if n < 4 or not np.all(np.diff(x) > 0):  # three Lobatto nodes are equidistant
        return None
    span = float(x[-1] - x[0])
    unit = 2 * (x - x[0]) / span - 1
    i = np.arange(n)
    wall_gap = math.cos(math.pi / (2 * n))
    gauss, lobatto = -np.cos(np.pi * (i + 0.5) / n) / wall_gap, -np.cos(np.pi * i / (n - 1))
    for reference, scale in ((gauss, wall_gap), (lobatto, 1.0)):
        if float(np.abs(unit - reference).max()) < COORDINATE_TOLERANCE / n:
            return span / scale
    return None
