"""Pointwise errors against values worked out by hand."""

import pytest
import torch

from gust_torch.metrics import mse, vrmse


def test_mse_is_per_sample_and_field() -> None:
    x = torch.zeros(2, 3, 4, 5)
    x_hat = x + torch.arange(6.0).view(2, 3, 1, 1)
    torch.testing.assert_close(mse(x_hat, x), torch.arange(6.0).view(2, 3) ** 2)


def test_vrmse_of_the_mean_is_one_and_of_the_field_zero() -> None:
    x = 5.0 + torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    mean = x.mean(dim=(-2, -1), keepdim=True).expand_as(x)
    torch.testing.assert_close(vrmse(mean, x), torch.ones(2, 2), rtol=1e-5, atol=0)
    assert torch.equal(vrmse(x, x), torch.zeros(2, 2))


def test_vrmse_does_not_depend_on_units() -> None:
    generator = torch.Generator().manual_seed(1)
    x, error = torch.randn(2, 1, 1, 16, 16, generator=generator)
    torch.testing.assert_close(vrmse(100 * (x + error), 100 * x), vrmse(x + error, x), rtol=1e-5, atol=0)


def test_vrmse_of_a_constant_field_is_finite() -> None:
    x = torch.ones(1, 1, 4, 4)
    # sqrt(1 / 1e-7)
    assert float(vrmse(x + 1, x)) == pytest.approx(3162.2776, rel=1e-5)


def test_vrmse_is_differentiable() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x_hat = (x + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(vrmse, (x_hat, x))
