"""Small random meshes, for benchmarks and tests."""

import numpy as np
from scipy.spatial import Delaunay


def random_mesh(num_nodes: int, seed: int) -> dict[str, np.ndarray]:
    """Return a triangulation of random points of the unit square with its graph Laplacian.

    Args:
        num_nodes: n, at least 4.
        seed: Of the points.

    Returns:
        The arrays of a mesh shard: `coords` (n, 2) float32; `cells` (m, 3), `edges` (e, 2) and the CSR matrix
        int32, with weights 1 / length: symmetric, rows of zero sum, positive diagonal.
    """
    coords = np.random.default_rng(seed).random((num_nodes, 2), dtype=np.float32)
    cells = Delaunay(coords).simplices.astype(np.int32)
    sides = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [0, 2]]]), axis=1)
    edges = np.unique(sides, axis=0)
    weights = 1 / np.linalg.norm(coords[edges[:, 0]] - coords[edges[:, 1]], axis=1)
    dense = np.zeros((num_nodes, num_nodes), np.float32)
    dense[edges[:, 0], edges[:, 1]] = dense[edges[:, 1], edges[:, 0]] = -weights
    np.fill_diagonal(dense, -dense.sum(axis=1))
    rows, columns = np.nonzero(dense)
    return {
        "coords": coords,
        "cells": cells,
        "edges": edges,
        "laplacian_data": dense[rows, columns],
        "laplacian_indices": columns.astype(np.int32),
        "laplacian_indptr": np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_nodes))]).astype(
            np.int32
        ),
    }
