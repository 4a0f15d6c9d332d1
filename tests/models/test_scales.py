"""Token grids: checks, codebook sizes, Down and Up."""

import pytest
import torch
import torch.nn.functional as F

from gust_torch.models.scales import check_scales, codebook_sizes, down, suggest_scales, up


@pytest.mark.parametrize(
    ("latent", "expected"),
    [
        ((8, 8), ((1, 1), (2, 2), (4, 4), (8, 8))),
        ((4, 2), ((1, 1), (2, 1), (4, 2))),
        ((8, 1), ((1, 1), (2, 1), (4, 1), (8, 1))),
        ((6, 6), ((1, 1), (3, 3), (6, 6))),
    ],
)
def test_suggested_scales_pass_the_check(latent, expected):
    assert suggest_scales(latent) == expected
    assert check_scales([list(scale) for scale in expected], latent) == expected


@pytest.mark.parametrize(
    "scales",
    [
        [[1, 1], [2, 2]],
        [[2, 2], [1, 1], [4, 2]],
        [[4, 4], [4, 2]],
        [[1, 1], [1, 1], [4, 2]],
        [],
        [[1]],
        [[0, 1], [4, 2]],
        [[1, 1, 1], [4, 2]],
    ],
)
def test_scales_that_do_not_fit_name_the_right_ones(scales):
    with pytest.raises(ValueError, match=r"4x2 latent grid; use scales \[\[1, 1\], \[2, 1\], \[4, 2\]\]"):
        check_scales(scales, (4, 2))


def test_codebooks_grow_with_the_scale():
    assert codebook_sizes(512, 5) == (64, 64, 128, 256, 512)
    assert codebook_sizes(32, 3) == (32, 32, 32)
    assert codebook_sizes([5, 6, 7], 3) == (5, 6, 7)
    with pytest.raises(ValueError, match="3 integers"):
        codebook_sizes([5, 6], 3)


def test_down_and_up_are_area_and_nearest_where_the_grids_divide():
    r = torch.randn(2, 3, 8, 4)
    assert torch.allclose(down(r, (4, 2)), F.interpolate(r, (4, 2), mode="area"))
    v = torch.randn(2, 3, 4, 1)
    assert torch.equal(up(v, (8, 4)), F.interpolate(v, (8, 4), mode="nearest"))


@pytest.mark.parametrize(
    ("fine", "coarse"), [((8, 8), (2, 4)), ((8, 6), (3, 4)), ((7, 5), (5, 5)), ((9, 4), (1, 3))]
)
def test_up_after_down_is_an_orthogonal_projection(fine, coarse):
    r = torch.randn(2, 3, *fine, dtype=torch.float64)
    p = up(down(r, coarse), fine)
    assert p.shape == r.shape
    assert torch.allclose(up(down(p, coarse), fine), p)
    assert torch.allclose((p * (r - p)).sum(), torch.zeros((), dtype=torch.float64), atol=1e-12)
