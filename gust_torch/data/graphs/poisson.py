"""A transform that gives meshes without fields a problem to learn: Poisson's equation."""

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

if TYPE_CHECKING:
    from torch_geometric.data import Data

NUM_MODES = 4
LARGEST_WAVENUMBER = 2


class PoissonField:
    """Adds node fields `f` and `u` (n,) float32 with L u = f at interior nodes and u = 0 on the boundary.

    L is the item's Laplacian as it stands: a stiffness matrix (cotangent weights, zero row sums, positive
    diagonal), without a mass. As a differential equation L u = f therefore reads -div grad u = f / m with
    the area m of each node, so that u depends on the density of the mesh. With `lumped_mass` the equation is
    L u = M f, M being a third of the area of each node's triangles: -div grad u = f, whatever the mesh.

    f is a sum of random Fourier modes of the coordinates over the mesh's bounding box,
    f(x) = sum_j a_j cos(2 pi k_j . x + phi_j), a_j ~ N(0, 1), |k| <= 2 along each axis, k not 0, divided by
    sqrt(sum_j a_j^2 / 2). It depends on the seed and on the coordinates alone: the same mesh gets the same
    field in every process. Boundary nodes are those of sides that belong to one cell only, and nodes of no
    cell. The pair is solved in double precision and rounded.

    Args:
        seed: Of the modes.
        lumped_mass: Weight the right-hand side by the nodes' areas.
    """

    def __init__(self, seed: int = 0, lumped_mass: bool = False) -> None:
        self.seed, self.lumped_mass = seed, lumped_mass

    def __call__(self, data: "Data") -> "Data":
        """Add both fields to the item; ValueError where no node is inside, or L is singular there."""
        laplacian = scipy_laplacian(data)
        coordinates = data.pos.double().numpy()
        cells = data.face.T.numpy()
        f = smooth_field(coordinates, self.seed)
        interior = np.flatnonzero(~boundary_nodes(cells, len(coordinates)))
        if not len(interior):
            raise ValueError("a mesh has no interior node, so that u = 0 everywhere; leave it out")
        weights = lumped_mass(coordinates, cells) if self.lumped_mass else np.ones_like(f)
        u = np.zeros_like(f)
        u[interior] = spsolve(laplacian[interior][:, interior].tocsc(), (weights * f)[interior])
        if not np.isfinite(u).all():
            raise ValueError("the Laplacian of a mesh is singular on the interior nodes; leave it out")
        data.f, data.u = (torch.from_numpy(values.astype(np.float32)) for values in (f, u))
        return data

    def __repr__(self) -> str:
        return f"PoissonField(seed={self.seed}, lumped_mass={self.lumped_mass})"


def scipy_laplacian(data: "Data") -> Any:
    """Return the item's Laplacian as a scipy CSR matrix, (n, n) float64."""
    matrix = data.laplacian
    parts = (matrix.values().double(), matrix.col_indices(), matrix.crow_indices())
    return csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(matrix.shape))


def boundary_nodes(cells: np.ndarray, num_nodes: int) -> np.ndarray:
    """(n,) bool: nodes of sides (edges of triangles, faces of tetrahedra) of one cell only, or of no cell.

    Cells are (m, 3) or (m, 4).
    """
    corners = cells.shape[1]
    sides = np.sort(np.concatenate([cells[:, list(s)] for s in combinations(range(corners), corners - 1)]))
    unique, counts = np.unique(sides, axis=0, return_counts=True)
    boundary = np.ones(num_nodes, bool)
    boundary[cells.ravel()] = False
    boundary[unique[counts == 1].ravel()] = True
    return boundary


def lumped_mass(coordinates: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return a third of the area of each node's triangles, (n,), in squared units of the coordinates."""
    if cells.shape[1] != 3:
        raise ValueError("lumped masses are those of triangles; set lumped_mass=False for other cells")
    a, b = (coordinates[cells[:, i]] - coordinates[cells[:, 0]] for i in (1, 2))
    gram = (a * a).sum(1) * (b * b).sum(1) - (a * b).sum(1) ** 2
    areas = 0.5 * np.sqrt(np.maximum(gram, 0.0))
    return np.bincount(cells.ravel(), np.repeat(areas / 3, 3), minlength=len(coordinates))


def smooth_field(coordinates: np.ndarray, seed: int) -> np.ndarray:
    """f at coordinates (n, d), see `PoissonField`: (n,) float64, of variance about 1."""
    digest = hashlib.sha256(np.ascontiguousarray(coordinates).tobytes()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])
    dims = coordinates.shape[1]
    k = rng.integers(-LARGEST_WAVENUMBER, LARGEST_WAVENUMBER + 1, (NUM_MODES, dims))
    k[(k == 0).all(1), 0] = 1
    amplitudes, phases = rng.standard_normal(NUM_MODES), rng.uniform(0, 2 * np.pi, NUM_MODES)
    lower, upper = coordinates.min(0), coordinates.max(0)
    unit = (coordinates - lower) / np.where(upper > lower, upper - lower, 1.0)
    modes = amplitudes * np.cos(2 * np.pi * unit @ k.T + phases)
    return np.asarray(modes.sum(1) / np.sqrt((amplitudes**2).sum() / 2))
