"""Convolutions at boundaries, upsampling, normalization."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from gust_torch.models.blocks import BoundaryConv2d, SelfAttention2d, Upsample2d, group_norm

BOUNDARIES = list(product(("periodic", "wall"), repeat=2))
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def padded(x, boundary):
    """One cell on each side by torch's own padding."""
    x = F.pad(x, (0, 0, 1, 1), mode="circular" if boundary[0] == "periodic" else "constant")
    return F.pad(x, (1, 1, 0, 0), mode="circular" if boundary[1] == "periodic" else "constant")


def assert_same_function(f, g, x):
    """Equal values and gradients."""
    y, expected = f(x), g(x)
    assert torch.allclose(y, expected, atol=1e-12)
    seed = torch.randn_like(expected)
    (gradient,), (expected,) = torch.autograd.grad(y, x, seed), torch.autograd.grad(expected, x, seed)
    assert torch.allclose(gradient, expected, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(6, 4), (1, 3), (1, 1)])
def test_convolution_wraps_on_periodic_axes_and_sees_zeros_beyond_walls(boundary, size, layout):
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    for stride in (1, 2):
        conv = BoundaryConv2d(3, 5, boundary, stride=stride).double()
        assert_same_function(
            conv, lambda x, c=conv: F.conv2d(padded(x, boundary), c.weight, c.bias, stride=c.stride), x
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(6, 4), (1, 3), (1, 1)])
def test_upsampling_is_nearest_neighbor_then_convolution(boundary, size, layout):
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    block = Upsample2d(3, 5, boundary).double()

    def reference(x):
        fine = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.conv2d(padded(fine, boundary), block.conv.weight, block.conv.bias)

    assert_same_function(block, reference, x)


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (16, 4), (20, 5), (7, 1), (3, 1), (36, 9)])
def test_groups_divide_the_channels(channels, groups):
    norm = group_norm(channels)
    assert norm.num_groups == groups
    norm(torch.randn(2, channels, 4, 4))


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="attention_heads=3 does not divide the 8 channels"):
        SelfAttention2d(8, num_heads=3)


def test_attention_treats_all_cells_alike():
    attention = SelfAttention2d(8, num_heads=2).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    y = attention(x)
    assert torch.allclose(attention(x.flip(2)), y.flip(2))
    assert torch.allclose(attention(x.roll(2, 3)), y.roll(2, 3))
