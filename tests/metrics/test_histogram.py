"""Streaming histogram and distances between distributions, against NumPy and SciPy."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from torch import Tensor

from gust_torch.metrics.histogram import (
    NUM_BINS,
    ValueHistogram,
    js_divergence,
    total_variation,
    wasserstein1,
)


def unit_histogram(channels: int = 1) -> ValueHistogram:
    return ValueHistogram(torch.zeros(channels), torch.ones(channels))


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_counts_agree_with_numpy() -> None:
    x, y = values(4, 1, 16, 16), values(4, 1, 16, 16, seed=1)
    histogram = unit_histogram()
    histogram.update(x, y)
    edges = histogram.edges(0).numpy()
    for counts, field in zip(histogram.counts[:, 0], (x, y), strict=True):
        np.testing.assert_array_equal(counts.numpy(), np.histogram(field.double().numpy(), edges)[0])


def test_batches_and_order_do_not_matter_even_when_the_grid_grows() -> None:
    """Values up to 1e4 scales: the grid, reaching 32 at first, doubles in the middle of one pass."""
    x = values(6, 2, 8, 8)
    x[4] *= 100.0
    x[5, 1] *= 1e4
    y = x.flip(-1) * 1.1
    whole, parts, backwards = unit_histogram(2), unit_histogram(2), unit_histogram(2)
    whole.update(x, y)
    for i in range(6):
        parts.update(x[i : i + 1], y[i : i + 1])
        backwards.update(x[5 - i : 6 - i], y[5 - i : 6 - i])
    for other in (parts, backwards):
        assert torch.equal(whole.counts, other.counts)
        assert torch.equal(whole.width, other.width)
    assert whole.width[1] > whole.width[0] > 1 / 256
    assert whole.counts.sum() == x.numel() + y.numel()
    for channel in (0, 1):
        edges = whole.edges(channel).numpy()
        expected = np.histogram(x[:, channel].double().numpy(), edges)[0]
        np.testing.assert_array_equal(whole.counts[0, channel].numpy(), expected)


def test_memory_does_not_grow() -> None:
    histogram = unit_histogram()
    before = histogram.counts.shape
    for seed in range(5):
        histogram.update(10.0**seed * values(2, 1, 8, 8, seed=seed), values(2, 1, 8, 8))
    assert histogram.counts.shape == before == (2, 1, NUM_BINS)


def test_values_on_the_edges_of_the_grid_are_counted() -> None:
    for reach in (31.99609375, 31.9999, 32.0, -32.0, 64.0, 1e30, -1e30):
        histogram = unit_histogram()
        histogram.update(torch.full((1, 1, 2, 2), reach), torch.zeros(1, 1, 2, 2))
        assert histogram.counts.sum(-1).flatten().tolist() == [4, 4]


def test_coarse_bins_are_a_sixteenth_of_the_scale_and_cover_both_fields() -> None:
    x, y = values(8, 1, 32, 32), 3.0 + 2.0 * values(8, 1, 32, 32, seed=1)
    histogram = ValueHistogram(torch.zeros(1), torch.full((1,), 2.0))
    histogram.update(x, y)
    counts, edges = histogram.coarse(0)
    torch.testing.assert_close(edges.diff(), torch.full_like(edges.diff(), 2.0 / 16))
    assert counts.sum(-1).tolist() == [x.numel(), y.numel()]
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    assert edges[0] <= low < edges[1]
    assert edges[-2] <= high < edges[-1]
    np.testing.assert_array_equal(counts[1].numpy(), np.histogram(y.double().numpy(), edges.numpy())[0])


def test_coarse_bins_after_growth() -> None:
    histogram = unit_histogram()
    histogram.update(torch.full((1, 1, 2, 2), 1e4), torch.zeros(1, 1, 2, 2))
    counts, edges = histogram.coarse(0)
    assert float(edges[1] - edges[0]) == float(histogram.width[0]) > 1 / 16
    assert edges[-2] <= 1e4 < edges[-1]
    assert counts.sum(-1).tolist() == [4, 4]


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.3, 1.0), (0.0, 1.4), (-0.2, 0.8), (50.0, 1.0)])
def test_wasserstein_agrees_with_scipy_within_a_bin(shift: float, stretch: float) -> None:
    x, y = values(4, 1, 32, 32), shift + stretch * values(4, 1, 32, 32, seed=1)
    histogram = unit_histogram()
    histogram.update(x, y)
    measured = float(wasserstein1(*histogram.counts[:, 0], histogram.width[0]))
    exact = scipy.stats.wasserstein_distance(x.flatten().numpy(), y.flatten().numpy())
    assert abs(measured - exact) < float(histogram.width[0])


def test_divergences_agree_with_scipy() -> None:
    p = torch.tensor([0, 1, 5, 10, 3, 0, 1])
    q = torch.tensor([2, 0, 4, 9, 9, 0, 0])
    expected = scipy.spatial.distance.jensenshannon(p.numpy(), q.numpy()) ** 2
    assert float(js_divergence(p, q)) == pytest.approx(expected, rel=1e-12)
    expected_tv = 0.5 * np.abs(p.numpy() / 20 - q.numpy() / 24).sum()
    assert float(total_variation(p, q)) == pytest.approx(expected_tv, rel=1e-12)


def test_extremes() -> None:
    p, q = torch.tensor([4, 0, 0]), torch.tensor([0, 0, 9])
    assert float(js_divergence(p, q)) == pytest.approx(math.log(2), rel=1e-14)
    assert float(total_variation(p, q)) == 1.0
    assert float(wasserstein1(p, q, 0.5)) == 1.0
    for distance in (js_divergence(p, 3 * p), total_variation(p, 3 * p), wasserstein1(p, 3 * p, 0.5)):
        assert float(distance) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_values_are_refused(bad: float) -> None:
    x, y = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    x[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="the data holds NaN or infinite values"):
        unit_histogram().update(x, y)
    with pytest.raises(ValueError, match="the reconstruction holds NaN"):
        unit_histogram().update(y, x)
