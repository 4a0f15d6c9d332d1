"""Spectra against exact solutions: single modes, Parseval, a direct sum over all modes, walls, gradients."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.metrics.transforms import chebyshev_nodes, chebyshev_to_uniform
from gust_torch.spec import FieldSpec

GRIDS = [(16, 16), (15, 16), (16, 15), (15, 17), (24, 10)]
BOUNDARIES = [("periodic", "periodic"), ("periodic", "wall"), ("wall", "periodic"), ("wall", "wall")]


make_spec = partial(FieldSpec, ("vorticity",))


def mesh(spec: FieldSpec) -> tuple[Tensor, Tensor]:
    """Periodic axes from 0, wall axes at cell centers (or Chebyshev-Gauss nodes on axis 1)."""
    axes = []
    for axis, (n, length) in enumerate(zip(spec.grid, spec.lengths, strict=True)):
        points = torch.arange(n, dtype=torch.float64)
        if spec.boundary[axis] == "wall":
            points = points + 0.5
        if axis == 1 and spec.grid_y == "chebyshev":
            points = n * 0.5 * (1 - torch.cos(math.pi * points / n))
        axes.append(points * length / n)
    return torch.meshgrid(*axes, indexing="ij")


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", GRIDS)
def test_shells_sum_to_the_mean_energy(grid: tuple[int, int], boundary: tuple[str, str]) -> None:
    spec = make_spec(grid, boundary, lengths=(4.0, 1.0))
    x = 3.0 + torch.randn(2, 3, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    energy = 0.5 * x.square().mean(dim=(-2, -1))
    exact = ShellSpectrum(spec, dtype=torch.float64)(x)
    assert exact.shape == (2, 3, ShellSpectrum(spec).num_shells)
    torch.testing.assert_close(exact.sum(-1), energy, rtol=1e-13, atol=0)
    # Single precision: round-off of about 1e-7 per value.
    torch.testing.assert_close(ShellSpectrum(spec)(x.float()).sum(-1), energy.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("mx", "my"), [(0, 0), (3, 0), (0, 5), (3, 4), (2, -6), (8, 0), (0, 8), (8, 8), (5, 8)]
)
def test_single_mode_lands_in_its_shell(mx: int, my: int) -> None:
    spec = make_spec((16, 16))
    x, y = mesh(spec)
    field = torch.cos(mx * x + my * y)
    spectrum = ShellSpectrum(spec, dtype=torch.float64)(field[None, None])[0, 0]
    expected = torch.zeros_like(spectrum)
    expected[round(math.hypot(mx, my))] = 0.5 * field.square().mean()
    torch.testing.assert_close(spectrum, expected, rtol=1e-12, atol=1e-15)


def test_shells_are_round_in_physical_space() -> None:
    """On a 4:1 domain the modes (4, 0) and (0, 1) have the same wavelength, so the same shell."""
    spec = make_spec((64, 16), lengths=(4.0, 1.0))
    x, y = mesh(spec)
    spectrum = ShellSpectrum(spec, dtype=torch.float64)
    along_x = torch.cos(2 * math.pi * 4 * x / 4.0)[None, None]
    along_y = torch.sin(2 * math.pi * y)[None, None]
    assert spectrum.dk == pytest.approx(2 * math.pi / 4)
    assert spectrum.k_max == pytest.approx(2 * math.pi * 8)
    assert float(spectrum.k[4]) == pytest.approx(2 * math.pi)
    for field in (along_x, along_y):
        assert float(spectrum(field)[0, 0, 4]) == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_agrees_with_a_direct_sum_over_the_full_transform(grid: tuple[int, int]) -> None:
    spec = make_spec(grid, lengths=(3.0, 2.0))
    x = np.random.default_rng(0).standard_normal(grid)
    power = 0.5 * np.abs(np.fft.fft2(x) / x.size) ** 2
    kx = 2 * np.pi * np.fft.fftfreq(grid[0], 3.0 / grid[0])
    ky = 2 * np.pi * np.fft.fftfreq(grid[1], 2.0 / grid[1])
    k = np.hypot(kx[:, None], ky[None, :])
    dk = 2 * np.pi / 3.0
    spectrum = ShellSpectrum(spec, dtype=torch.float64)
    enstrophy = spectrum(torch.from_numpy(x)[None, None])[0, 0].numpy()
    kinetic = spectrum.kinetic_energy(torch.from_numpy(x)[None, None])[0, 0].numpy()
    for i in range(spectrum.num_shells):
        inside = (k >= (i - 0.5) * dk - 1e-9) & (k < (i + 0.5) * dk - 1e-9)
        assert enstrophy[i] == pytest.approx(power[inside].sum(), rel=1e-12, abs=1e-18)
        nonzero = inside & (k > 0)
        assert kinetic[i] == pytest.approx((power[nonzero] / k[nonzero] ** 2).sum(), rel=1e-12, abs=1e-18)


def test_kinetic_energy_is_that_of_the_velocity() -> None:
    """u = d psi/dy, v = -d psi/dx: their spectra add up to that from the vorticity, shell by shell."""
    spec = make_spec((24, 20), lengths=(4.0, 2 * math.pi))
    x, y = mesh(spec)
    a, b = 2 * math.pi * 2 / 4.0, 3.0
    psi_terms = [(1.0, a, b), (0.3, 2 * a, -b), (0.2, 0.0, 2.0)]
    omega = sum(c * (p**2 + q**2) * torch.cos(p * x + q * y) for c, p, q in psi_terms)
    u = sum(-c * q * torch.sin(p * x + q * y) for c, p, q in psi_terms)
    v = sum(c * p * torch.sin(p * x + q * y) for c, p, q in psi_terms)
    spectrum = ShellSpectrum(spec, dtype=torch.float64)
    from_velocity = spectrum(torch.stack([u, v])[None])[0].sum(0)
    torch.testing.assert_close(
        spectrum.kinetic_energy(omega[None, None])[0, 0], from_velocity, rtol=1e-11, atol=1e-14
    )


def test_known_isotropic_spectrum_in_single_precision() -> None:
    """E(k) ~ k^-5 with random phases: float32 is good to 1e-4 in each shell, over nine decades."""
    n = 128
    rng = np.random.default_rng(2)
    k1 = n * np.fft.fftfreq(n)
    k = np.hypot(k1[:, None], k1[None, :])
    amplitude = np.where((k > 0) & (k < n // 2), np.maximum(k, 1.0) ** -3.0, 0.0)
    noise = np.fft.fft2(rng.standard_normal((n, n)))
    modes = amplitude * noise / np.abs(noise)
    field = np.fft.ifft2(modes).real * n * n
    spectrum = ShellSpectrum(make_spec((n, n)))
    measured = spectrum(torch.from_numpy(field).float()[None, None])[0, 0].double().numpy()
    for i in range(1, n // 2):
        inside = (k >= i - 0.5) & (k < i + 0.5)
        assert measured[i] == pytest.approx(0.5 * (amplitude[inside] ** 2).sum(), rel=1e-4)
    assert float(spectrum.k_max) == n // 2


@pytest.mark.parametrize("grid_y", ["uniform", "chebyshev"])
@pytest.mark.parametrize(("mx", "my"), [(0, 1), (3, 0), (2, 5), (8, 3)])
def test_wall_axis_resolves_cosine_modes(grid_y: str, mx: int, my: int) -> None:
    """cos(pi my z / Lz) has wavenumber pi my / Lz, on Chebyshev nodes as on a uniform grid."""
    spec = make_spec((16, 32), ("periodic", "wall"), lengths=(4.0, 1.0), grid_y=grid_y)
    x, z = mesh(spec)
    field = torch.cos(2 * math.pi * mx * x / 4.0) * torch.cos(math.pi * my * z)
    spectrum = ShellSpectrum(spec, dtype=torch.float64)
    k = math.hypot(2 * math.pi * mx / 4.0, math.pi * my)
    energy = 0.5 * (1.0 if mx in (0, 8) else 0.5) * (1.0 if my == 0 else 0.5)
    expected = torch.zeros(spectrum.num_shells, dtype=torch.float64)
    expected[math.floor(k / spectrum.dk + 0.5)] = energy
    # 32 Chebyshev nodes resolve five half waves to round-off.
    torch.testing.assert_close(spectrum(field[None, None])[0, 0], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("n", [8, 9, 33])
def test_chebyshev_interpolation_is_exact_on_polynomials(n: int) -> None:
    centers = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    matrix = chebyshev_to_uniform(n)
    for degree in range(n):
        torch.testing.assert_close(matrix @ chebyshev_nodes(n) ** degree, centers**degree, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid_y", ["uniform", "chebyshev"])
def test_kinetic_energy_between_no_slip_walls(grid_y: str) -> None:
    """psi = sin(kx x) z^2 (1-z)^2 is no-slip; <|u|^2>/2 = (<f'^2> + kx^2 <f^2>)/4 with f = z^2 (1-z)^2."""
    spec = make_spec((16, 48), ("periodic", "wall"), lengths=(4.0, 1.0), grid_y=grid_y)
    x, z = mesh(spec)
    kx = 2 * math.pi / 4.0
    f = z**2 * (1 - z) ** 2
    second_derivative = 2 - 12 * z + 12 * z**2
    omega = torch.sin(kx * x) * (kx**2 * f - second_derivative)
    mean_f2, mean_df2 = 1 / 630, 2 / 105
    exact = 0.25 * (mean_df2 + kx**2 * mean_f2)
    energy = ShellSpectrum(spec, dtype=torch.float64).kinetic_energy(omega[None, None]).sum()
    # The vorticity does not vanish at the walls: its sine modes decay as 1/m, the energy's as m^-4.
    assert float(energy) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradients(boundary: tuple[str, str]) -> None:
    spectrum = ShellSpectrum(make_spec((6, 5), boundary, lengths=(4.0, 1.0)), dtype=torch.float64)
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x.requires_grad_()
    assert torch.autograd.gradcheck(spectrum, (x,))
    assert torch.autograd.gradcheck(spectrum.kinetic_energy, (x,))


def test_autocast_does_not_lower_the_precision() -> None:
    spec = make_spec((16, 32), ("periodic", "wall"), lengths=(4.0, 1.0))
    x = torch.randn(1, 1, 16, 32, generator=torch.Generator().manual_seed(4))
    spectrum = ShellSpectrum(spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = spectrum(x)
    assert torch.equal(inside, spectrum(x))


def test_adds_nothing_to_a_checkpoint() -> None:
    assert not ShellSpectrum(make_spec((16, 16))).state_dict()


def test_wrong_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected fields \(b, c, 16, 16\), got \(1, 1, 8, 8\)"):
        ShellSpectrum(make_spec((16, 16)))(torch.zeros(1, 1, 8, 8))
