"""Pointwise errors against values worked out by hand."""

import pytest
import torch

from gust_torch.metrics.errors import mse, normalized_rmse, point_vrmse, vrmse


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
    for unit in (100.0, 1e-5, 1e-9, 1e9):
        torch.testing.assert_close(
            vrmse(unit * (x + error), unit * x), vrmse(x + error, x), rtol=1e-5, atol=0
        )


def test_vrmse_does_not_depend_on_a_large_mean() -> None:
    """Kelvin or degrees Celsius, pressures about an atmosphere."""
    x, error = torch.randn(2, 1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for mean in (273.15, 1e4):
        shifted = x + mean
        torch.testing.assert_close(vrmse(shifted + error, shifted), vrmse(x + error, x), rtol=1e-5, atol=0)


def test_vrmse_of_a_constant_field_is_finite() -> None:
    x = torch.ones(1, 1, 4, 4)
    for unit in (1.0, 1e-5, 0.1):
        # sqrt(1 / 1e-7)
        assert float(vrmse(2 * unit * x, unit * x)) == pytest.approx(3162.2776, rel=1e-5)
    assert float(vrmse(0 * x, 0 * x)) == 0.0


def test_vrmse_is_differentiable() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x_hat = (x + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(vrmse, (x_hat, x))


def test_nrmse_by_hand() -> None:
    def nrmse(x_hat: float, x: float) -> float:
        error, power = torch.tensor([(x_hat - x) ** 2, x**2])
        return float(normalized_rmse(error, power))

    assert nrmse(-3.0, -4.0) == 0.25
    assert nrmse(0.0, -4.0) == 1.0
    assert nrmse(0.0, 0.0) == 0.0
    assert 1e12 < nrmse(1.0, 0.0) < torch.inf


def test_errors_at_points_are_those_on_grids() -> None:
    x, x_hat = 1 + torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(3))
    sample = torch.arange(3).repeat_interleave(20)
    values, estimates = (field.movedim(1, -1).reshape(-1, 2) for field in (x, x_hat))
    torch.testing.assert_close(point_vrmse(estimates, values, sample, 3), vrmse(x_hat, x))
