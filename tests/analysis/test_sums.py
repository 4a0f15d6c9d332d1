"""Running sums against the same numbers from all samples at once, and their size."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.analysis.sums import RATIOS, ErrorSums, FloorFrames, SpectrumSums
from gust_torch.metrics.errors import mse, vrmse
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec

CPU = torch.device("cpu")


def random_pair(spec: FieldSpec, num: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, num, spec.num_channels, *spec.grid, generator=generator)
    return x, x + 0.5 * noise


def test_errors_agree_with_all_samples_at_once() -> None:
    spec = FieldSpec(names=("vorticity", "buoyancy"), grid=(16, 16))
    x, x_hat = random_pair(spec)
    sums = ErrorSums()
    for i in (0, 4, 9):
        stop = {0: 4, 4: 9, 9: 10}[i]
        sums.update(x[i:stop], x_hat[i:stop])
    for name, values in (("mse", mse(x_hat, x)), ("vrmse", vrmse(x_hat, x))):
        for channel in (0, 1):
            summary = sums.summary(name, channel)
            assert summary["mean"] == pytest.approx(float(values[:, channel].mean()), rel=1e-6)
            assert summary["std"] == pytest.approx(float(values[:, channel].std(correction=0)), rel=1e-4)
            expected = np.quantile(values[:, channel].numpy(), (0.05, 0.5, 0.95))
            assert list(summary["quantiles"].values()) == pytest.approx(expected, rel=1e-6)
            assert summary["standard_error"] == pytest.approx(summary["std"] / 10**0.5)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_errors_know_no_units(unit: float) -> None:
    spec = FieldSpec(names=("vorticity",), grid=(16, 16))
    x, x_hat = random_pair(spec)
    sums, other = ErrorSums(), ErrorSums()
    sums.update(x, x_hat)
    other.update(unit * x, unit * x_hat)
    for name, power in (("mse", unit**2), ("vrmse", 1.0)):
        own, scaled = sums.summary(name, 0), other.summary(name, 0)
        assert scaled["mean"] == pytest.approx(power * own["mean"], rel=1e-4)
        expected = {q: power * value for q, value in own["quantiles"].items()}
        assert scaled["quantiles"] == pytest.approx(expected, rel=1e-4)


def test_mean_spectra_of_data_reconstruction_and_difference() -> None:
    spec = FieldSpec(names=("vorticity",), grid=(16, 16))
    x, x_hat = random_pair(spec)
    sums = SpectrumSums(spec, CPU)
    sums.update(x[:3], x_hat[:3])
    sums.update(x[3:], x_hat[3:])
    spectrum, mean = ShellSpectrum(spec), sums.field(0)
    for values, field in ((mean.reference, x), (mean.reconstruction, x_hat), (mean.error, x_hat - x)):
        np.testing.assert_allclose(values, spectrum(field).mean(dim=(0, 1)).numpy(), rtol=1e-5)
    assert mean.error.sum() == pytest.approx(0.5 * float((x_hat - x).square().mean()), rel=1e-5)
    expected = spectrum.kinetic_energy(x).mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(sums.kinetic_energy().reference, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (("vorticity",), "vorticity"),
        (("omega", "buoyancy"), "vorticity"),
        (("vorticity", "velocity_x", "velocity_y"), "velocity"),
        (("velocity_x", "velocity_y"), "velocity"),
        (("velocity_x", "buoyancy"), None),
        (("buoyancy",), None),
    ],
)
def test_kinetic_energy_prefers_the_velocity(names: tuple[str, ...], source: str | None) -> None:
    spec = FieldSpec(names=names, grid=(8, 8))
    sums = SpectrumSums(spec, CPU)
    assert sums.kinetic_source == source
    x, x_hat = random_pair(spec)
    sums.update(x, x_hat)
    if source == "velocity":
        u = x[:, [names.index("velocity_x"), names.index("velocity_y")]]
        expected = 0.5 * float(u.square().sum(1).mean())
        assert sums.kinetic_energy().reference.sum() == pytest.approx(expected, rel=1e-5)


def frames(num: int) -> FloorFrames:
    generator = torch.Generator().manual_seed(0)
    kept = FloorFrames(FieldSpec(("vorticity", "b"), (16, 16)), num, CPU)
    kept.update(torch.randn(num, 2, 16, 16, generator=generator) * torch.tensor([1.0, 1e-6])[:, None, None])
    return kept


def test_errors_fall_with_the_rate_and_stay_above_the_bound_in_any_unit() -> None:
    kept = frames(40)
    for channel in (0, 1):
        floor = kept.floor(channel, 1.0)
        assert floor is not None
        errors, bounds = floor["vrmse_at_these"], floor["gaussian_bound_at_these"]
        assert errors == sorted(errors, reverse=True)
        assert all(error > bound for error, bound in zip(errors, bounds, strict=True))
        assert floor["bits_per_pixel"] == pytest.approx(RATIOS, abs=0.005)
        assert (floor["vrmse"], floor["vrmse_of_gaussian_bound"]) == (errors[2], bounds[2])


def test_there_is_none_of_one_frame_or_no_bits() -> None:
    assert frames(1).floor(0, 1.0) is None
    assert frames(4).floor(0, 0.0) is None
