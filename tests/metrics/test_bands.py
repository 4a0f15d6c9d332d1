"""Band errors: which shells count, what a lost band scores, the default forcing scale."""

import pytest
import torch

from gust_torch.metrics.bands import BAND_NAMES, band_errors
from gust_torch.metrics.spectra import ShellSpectrum
from gust_torch.spec import FieldSpec


def spectrum_of(n: int, forcing: float | None) -> ShellSpectrum:
    return ShellSpectrum(FieldSpec(names=("vorticity",), grid=(n, n), forcing_wavenumber=forcing))


def test_each_shell_counts_in_one_band() -> None:
    """n = 48: k_max = 24, so the bands are 1..3, 4..15 and 16..24; the mean and the corners count in none."""
    spectrum = spectrum_of(48, 4.0)
    reference = torch.ones(spectrum.num_shells)
    members: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for shell in range(spectrum.num_shells):
        estimate = reference.clone()
        estimate[shell] = 0.0
        for band in spectrum.band_errors(reference, estimate).nonzero().flatten().tolist():
            members[band].append(shell)
    assert members == {0: [1, 2, 3], 1: list(range(4, 16)), 2: list(range(16, 25))}
    assert len(BAND_NAMES) == 3


def test_lost_and_doubled_bands() -> None:
    spectrum = spectrum_of(48, 4.0)
    reference = spectrum.k.clamp_min(1.0) ** -3
    estimate = torch.where(spectrum.k >= 16, 0.0, reference)
    estimate = torch.where((spectrum.k >= 4) & (spectrum.k < 16), 1.5 * reference, estimate)
    torch.testing.assert_close(spectrum.band_errors(reference, estimate), torch.tensor([0.0, 0.5, 1.0]))


def test_excess_and_deficit_do_not_cancel() -> None:
    k = torch.arange(34.0)
    reference = torch.ones(34)
    estimate = reference.clone()
    estimate[1], estimate[2] = 2.0, 0.0
    errors = band_errors(reference, estimate, k, 4.0, 24.0)
    torch.testing.assert_close(errors, torch.tensor([2 / 3, 0.0, 0.0]))


def test_unknown_forcing_is_a_quarter_of_the_longest_side() -> None:
    known, unknown = spectrum_of(48, 4.0), spectrum_of(48, None)
    assert unknown.k_forcing == pytest.approx(known.k_forcing)
    reference, estimate = torch.rand(2, 3, known.num_shells, generator=torch.Generator().manual_seed(0))
    expected = known.band_errors(reference, estimate)
    assert expected.shape == (3, 3)
    torch.testing.assert_close(unknown.band_errors(reference, estimate), expected)


def test_a_grid_too_small_for_a_band_gives_nan() -> None:
    spectrum = spectrum_of(8, 4.0)
    errors = spectrum.band_errors(torch.ones(spectrum.num_shells), torch.ones(spectrum.num_shells))
    assert errors.isnan().tolist() == [False, True, False]
