"""Lapped transforms and sketches: orthonormal, overlapping, exact on low modes."""

import math

import pytest
import torch

from gust_torch.models.lapped import lapped_matrix, sketch_matrix


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
@pytest.mark.parametrize(
    ("n", "blocks"), [(64, 2), (64, 16), (48, 3), (30, 6), (36, 4), (9, 3), (8, 8), (16, 1)]
)
def test_a_lapped_transform_is_orthonormal(n: int, blocks: int, boundary: str) -> None:
    matrix = lapped_matrix(n, blocks, boundary).flatten(0, 1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-13, rtol=0)


def test_its_functions_reach_over_the_edges_but_no_further_than_half_the_neighbors() -> None:
    block = lapped_matrix(64, 8, "periodic")[3].abs().amax(0) > 1e-12
    assert block.nonzero().flatten().tolist() == list(range(20, 36))


def test_at_walls_nothing_wraps_around() -> None:
    first, *_, last = lapped_matrix(64, 8, "wall").abs().amax(1) > 1e-12
    assert not first[12:].any()
    assert not last[:52].any()


def test_smooth_fields_need_fewer_coefficients_than_with_blocks() -> None:
    x = torch.cos(3 * 2 * math.pi / 64 * torch.arange(64, dtype=torch.float64) + 0.7)
    lapped = (lapped_matrix(64, 4, "periodic").flatten(0, 1) @ x).square().sort(descending=True).values
    points = torch.arange(16, dtype=torch.float64) + 0.5
    cosines = torch.cos(math.pi / 16 * torch.outer(torch.arange(16), points)) * math.sqrt(2 / 16)
    cosines[0] /= math.sqrt(2)
    blocks = (x.unflatten(0, (4, 16)) @ cosines.T).flatten().square().sort(descending=True).values
    assert lapped[12:].sum() < 0.5 * blocks[12:].sum()


@pytest.mark.parametrize(("n", "size"), [(128, 64), (100, 30), (100, 31), (64, 64)])
def test_a_sketch_keeps_low_modes_exactly(n: int, size: int) -> None:
    fine, coarse = (2 * math.pi * torch.arange(m, dtype=torch.float64) / m for m in (n, size))
    wave = 1 + torch.sin(3 * fine + 0.2) - 0.5 * torch.cos(14 * fine)
    expected = 1 + torch.sin(3 * coarse + 0.2) - 0.5 * torch.cos(14 * coarse)
    matrix = sketch_matrix(n, size, "periodic") * math.sqrt(size / n)
    torch.testing.assert_close(matrix @ wave, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix.T * (n / size) @ expected, wave, atol=1e-12, rtol=0)


def test_a_sketch_between_walls_keeps_low_cosines() -> None:
    fine, coarse = ((torch.arange(m, dtype=torch.float64) + 0.5) / m for m in (64, 24))
    matrix = sketch_matrix(64, 24, "wall") * math.sqrt(24 / 64)
    wave = torch.cos(5 * math.pi * fine) + 2
    torch.testing.assert_close(matrix @ wave, torch.cos(5 * math.pi * coarse) + 2, atol=1e-12, rtol=0)
