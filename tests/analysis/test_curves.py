"""Spectra as drawn: densities, merged shells of elongated domains, empty shells."""

import math

import numpy as np
import pytest
import torch

from gust_torch.analysis.spectrum_figure import densities
from gust_torch.analysis.sums import Spectrum, SpectrumSums
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec


def mean_spectrum(spec: FieldSpec) -> tuple[Spectrum, ShellSpectrum]:
    sums = SpectrumSums(spec, torch.device("cpu"))
    x = torch.randn(4, 1, *spec.grid, generator=torch.Generator().manual_seed(0))
    sums.update(x, 0.5 * x)
    return sums.field(0), sums.shells


def test_square_domain_keeps_every_shell_to_the_isotropic_limit() -> None:
    spectrum, shells = mean_spectrum(FieldSpec(names=("vorticity",), grid=(16, 16), forcing_wavenumber=2.0))
    drawn = densities(spectrum, shells)
    np.testing.assert_allclose(drawn.k, np.arange(1, 9))
    np.testing.assert_allclose(drawn.reference, spectrum.reference[1:9])
    np.testing.assert_allclose(drawn.reconstruction, 0.25 * drawn.reference, rtol=1e-5)
    np.testing.assert_allclose(drawn.error, 0.25 * drawn.reference, rtol=1e-5)


def test_long_domain_merges_shells_and_keeps_the_energy() -> None:
    """Sides 4:1: shells 1, 2, 3 alone, then 4..7, 8..11; k_max is that of x, 16 shells."""
    spec = FieldSpec(names=("buoyancy",), grid=(32, 32), boundary=("periodic", "wall"), lengths=(4.0, 1.0))
    spectrum, shells = mean_spectrum(spec)
    drawn = densities(spectrum, shells)
    dk = math.pi / 2
    np.testing.assert_allclose(drawn.k, dk * np.array([1, 2, 3, 5.5, 9.5, 13.5]), rtol=1e-6)
    widths = dk * np.array([1, 1, 1, 4, 4, 4])
    assert (drawn.reference * widths).sum() == pytest.approx(spectrum.reference[1:16].sum(), rel=1e-12)


def test_shells_without_energy_are_left_out() -> None:
    spectrum, shells = mean_spectrum(FieldSpec(names=("vorticity",), grid=(16, 16)))
    spectrum.reference[[3, 5]] = 0.0
    np.testing.assert_allclose(densities(spectrum, shells).k, [1, 2, 4, 6, 7, 8])


def test_a_constant_field_has_nothing_to_draw() -> None:
    spectrum, shells = mean_spectrum(FieldSpec(names=("vorticity",), grid=(16, 16)))
    spectrum.reference[:] = 0.0
    assert densities(spectrum, shells).k.size == 0
