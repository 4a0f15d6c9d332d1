"""The Poisson transform: residual, boundary, determinism."""

from copy import copy

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import MatrixRankWarning

from gust_torch.data.graphs.items import make_item
from gust_torch.data.graphs.poisson import PoissonField, boundary_nodes, lumped_mass, scipy_laplacian
from gust_torch.data.graphs.schema import MESH, describe
from gust_torch.data.graphs.synthetic import random_mesh


def mesh(num_nodes=80, seed=0):
    """Return an item without fields."""
    arrays = random_mesh(num_nodes, seed)
    return make_item(MESH, arrays, describe(MESH, arrays))


def square(n):
    """(n + 1)^2 nodes of the unit square, two triangles a cell; L is the five-point stencil."""
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    coords = (np.stack([i, j], -1).reshape(-1, 2) / n).astype(np.float32)
    corner = (i[:-1, :-1] * (n + 1) + j[:-1, :-1]).ravel()
    lower = np.stack([corner, corner + n + 1, corner + n + 2], 1)
    upper = np.stack([corner, corner + 1, corner + n + 2], 1)
    cells = np.concatenate([lower, upper]).astype(np.int32)
    dense = np.zeros(((n + 1) ** 2,) * 2, np.float32)
    for a, b, c in cells:  # right angle at b: cotangents 0 there, 1 elsewhere, halved
        for p, q in ((a, b), (b, c)):
            dense[p, q] -= 0.5
            dense[q, p] -= 0.5
    np.fill_diagonal(dense, -dense.sum(1))
    rows, columns = np.nonzero(dense)
    pairs = np.stack([rows, columns], 1)
    arrays = {
        "coords": coords,
        "cells": cells,
        "edges": pairs[rows < columns].astype(np.int32),
        "laplacian_data": dense[rows, columns],
        "laplacian_indices": columns.astype(np.int32),
        "laplacian_indptr": np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int32),
    }
    return make_item(MESH, arrays, describe(MESH, arrays))


@pytest.mark.parametrize("mass", [False, True])
def test_the_pair_solves_the_equation_and_vanishes_on_the_boundary(mass):
    data = PoissonField(3, lumped_mass=mass)(mesh())
    boundary = boundary_nodes(data.face.T.numpy(), 80)
    assert 5 < boundary.sum() < 40
    assert data.f.dtype == data.u.dtype == torch.float32
    assert data.f.shape == data.u.shape == (80,)
    assert not data.u[boundary].any()
    laplacian, u, f = scipy_laplacian(data), data.u.double().numpy(), data.f.double().numpy()
    weights = lumped_mass(data.pos.double().numpy(), data.face.T.numpy()) if mass else 1.0
    residual = (laplacian @ u - weights * f)[~boundary]
    # u is rounded to float32: 3e-8 of the terms summed in L u, which are some hundreds.
    assert np.abs(residual).max() < 1e-5
    assert 0.1 < f.std() < 3


def test_fields_depend_on_seed_and_mesh_only():
    data = PoissonField(1)(mesh())
    again = PoissonField(1)(copy(mesh()))
    assert torch.equal(data.f, again.f)
    assert torch.equal(data.u, again.u)
    assert not torch.equal(data.f, PoissonField(2)(mesh()).f)
    assert not torch.equal(data.f, PoissonField(1)(mesh(seed=1)).f)


def test_with_masses_the_solution_is_that_of_the_differential_equation():
    data = PoissonField(0, lumped_mass=True)(square(16))
    inner = slice(1, -1)
    u, f = (values.double().numpy().reshape(17, 17) for values in (data.u, data.f))
    # M = 1 / 256 at interior nodes of this mesh
    laplace = 4 * u[inner, inner] - u[2:, inner] - u[:-2, inner] - u[inner, 2:] - u[inner, :-2]
    assert np.allclose(256 * laplace, f[inner, inner], atol=1e-3)
    assert lumped_mass(data.pos.double().numpy(), data.face.T.numpy()).sum() == pytest.approx(1.0)


def test_boundary_of_tetrahedra_and_loose_nodes():
    cells = np.array([[0, 1, 2, 4], [1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4]])  # node 4 inside a tetrahedron
    assert boundary_nodes(cells, 6).tolist() == [True, True, True, True, False, True]


def test_meshes_without_a_solution_are_refused():
    with pytest.raises(ValueError, match="no interior node"):
        PoissonField()(square(1))
    data = mesh()
    data.laplacian = torch.sparse_csr_tensor(
        data.laplacian.crow_indices(),
        data.laplacian.col_indices(),
        torch.zeros_like(data.laplacian.values()),
        size=(80, 80),
    )
    with pytest.warns(MatrixRankWarning), pytest.raises(ValueError, match="singular"):
        PoissonField()(data)


def test_sample_meshes(shared_data):
    for path in sorted((shared_data / "upstream" / "ups" / "raw").glob("2D/Darcy/Train/*.npz"))[:4]:
        with np.load(path) as shard:
            arrays = dict(shard)
        data = PoissonField(0)(make_item(MESH, arrays, describe(MESH, arrays)))
        boundary = boundary_nodes(data.face.T.numpy(), data.num_nodes)
        laplacian, u, f = scipy_laplacian(data), data.u.double().numpy(), data.f.double().numpy()
        residual = (laplacian @ u - f)[~boundary]
        assert np.abs(residual).max() < 1e-5 * (abs(laplacian) @ np.abs(u)).max()
