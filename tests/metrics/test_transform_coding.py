"""The transform code and the Gaussian bound against what theory says of them."""

import math

import pytest
import torch
from torch import Tensor

from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.transform_coding import (
    FieldTransform,
    TransformCode,
    gaussian_vrmse,
    transform_code_point,
)
from gust_torch.spec import FieldSpec

SPECS = [
    FieldSpec(("vorticity",), (16, 12)),
    FieldSpec(("vorticity",), (16, 12), ("periodic", "wall"), (4.0, 1.0), "chebyshev"),
    FieldSpec(("vorticity",), (9, 7), ("wall", "wall")),
]


def gaussian(num: int, variance: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, len(variance), generator=generator, dtype=torch.float64) * variance.sqrt()


def inverse(transform: FieldTransform, modes: Tensor) -> Tensor:
    """Undo an orthonormal transform by its transposes."""
    return transform.h.T @ modes.unflatten(1, (len(transform.h), len(transform.w))) @ transform.w


@pytest.mark.parametrize("spec", SPECS)
def test_squared_errors_are_the_same_on_both_sides(spec: FieldSpec) -> None:
    transform = FieldTransform(spec)
    x = torch.randn(3, *spec.grid, dtype=torch.float64)
    modes = transform(x)
    torch.testing.assert_close(modes.square().sum(1), x.square().sum((1, 2)))
    torch.testing.assert_close(inverse(transform, modes), x, atol=1e-12, rtol=0)
    torch.testing.assert_close(modes[:, 0], x.mean((1, 2)) * math.sqrt(x[0].numel()))


def test_the_bound_is_that_of_shannon_for_white_noise() -> None:
    """D(R) = 4^-R of a white Gaussian source."""
    white = gaussian(2000, torch.ones(64), 0)
    for point in gaussian_vrmse(white, [0.25, 1.0, 2.0]):
        assert point.vrmse == pytest.approx(2**-point.bits_per_pixel, rel=0.02)


def test_a_scalar_code_stands_as_far_above_the_bound_as_theory_says() -> None:
    """Entropy-coded uniform quantization of a Gaussian loses pi e / 6 (1.53 dB) at high rates."""
    white = [gaussian(500, torch.ones(256), seed) for seed in (0, 1)]
    point = transform_code_point(*white, 3.0)
    loss = point.vrmse**2 / 4**-point.bits_per_pixel
    assert point.bits_per_pixel == pytest.approx(3.0, abs=0.01)
    assert loss == pytest.approx(math.pi * math.e / 6, rel=0.05)


@pytest.mark.parametrize("rate", [0.05, 0.2, 1.0])
def test_a_code_of_a_steep_spectrum_stays_above_the_bound(rate: float) -> None:
    variance = (1 + torch.arange(1024).double() / 64) ** -3.0
    train, test = (gaussian(400, variance, seed) for seed in (0, 1))
    point = transform_code_point(train, test, rate)
    [bound] = gaussian_vrmse(test, [point.bits_per_pixel])
    assert point.bits_per_pixel == pytest.approx(rate, rel=0.02)
    assert 1.0 < point.vrmse / bound.vrmse < 1.4


def test_the_error_is_the_vrmse_of_the_decoded_fields() -> None:
    spec = SPECS[0]
    transform = FieldTransform(spec)
    x = torch.randn(6, 1, *spec.grid, dtype=torch.float64)
    modes = transform(x[:, 0])
    code = TransformCode(modes, 1.0)
    decoded = inverse(transform, code.dequantize(code.quantize(modes)))[:, None]
    error = (decoded - x).square().mean((1, 2, 3)) / x.var((1, 2, 3), correction=0)
    torch.testing.assert_close(vrmse(decoded, x)[:, 0], error.sqrt(), rtol=1e-5, atol=0)


def test_symbols_that_training_never_saw_cost_much_but_not_everything() -> None:
    train, test = gaussian(50, torch.ones(8), 0), 30 * gaussian(5, torch.ones(8), 1)
    code = TransformCode(train, 0.5)
    assert torch.isfinite(code.bits(code.quantize(test))).all()
    assert code.bits(code.quantize(test)).min() > code.bits(code.quantize(train)).max()
