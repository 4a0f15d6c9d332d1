"""Code statistics and bit rates."""

import numpy as np
import pytest

from gust_torch.tokenizer.usage import bit_rate, scale_usage


def test_equal_counts_have_perplexity_k() -> None:
    (usage,) = scale_usage([(4, 2)], [np.full(16, 5)])
    assert usage.perplexity == pytest.approx(16)
    assert (usage.codes_in_use, usage.codebook_size, usage.name) == (16, 16, "4x2")


def test_one_code_costs_nothing() -> None:
    (usage,) = scale_usage([(1, 1)], [np.array([0, 9, 0])])
    assert (usage.codes_in_use, usage.perplexity, usage.entropy_bits) == (1, 1.0, 0.0)


def test_entropy_of_known_frequencies() -> None:
    # p = 1/2, 1/4, 1/4: H = 1.5 bits
    (usage,) = scale_usage([(1, 1)], [np.array([2, 1, 0, 1])])
    assert usage.entropy_bits == pytest.approx(1.5)


def test_bits_per_pixel_count_every_scale() -> None:
    usages = scale_usage([(1, 1), (2, 2)], [np.array([1, 1, 0, 0]), np.array([3, 1] + [0] * 14)])
    rate = bit_rate(usages, num_channels=2, grid=(8, 4))
    assert rate.nominal == pytest.approx((1 * 2 + 4 * 4) / 64)
    entropy = 2 - 0.75 * np.log2(3)
    assert rate.entropy_coded == pytest.approx((1 * 1 + 4 * entropy) / 64)


def test_no_tokens_are_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens at scale 1x1"):
        scale_usage([(1, 1)], [np.zeros(4)])
