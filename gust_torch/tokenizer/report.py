"""Text of the tokenizer's findings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gust_torch.tokenizer.info import RoundTrip, TokenInfo
from gust_torch.tokenizer.pipeline import Saved
from gust_torch.tokenizer.usage import ScaleUsage
from gust_torch.tokenizer.vocabulary import Vocabulary

__all__ = ["describe_info", "describe_saved"]

COLUMNS = ("scale", "tokens", "codes in use", "perplexity", "perplexity/K", "bits/token")


def describe_saved(saved: Saved, output: str) -> str:
    """Describe a token file that was written."""
    lines = [*usage_table(saved.usages), "", *vocabulary_lines(saved.vocabulary, saved.num_samples)]
    return "\n".join([*lines, *unseen_lines(saved.unseen), f"written        {output}"])


def describe_info(info: TokenInfo) -> str:
    """Describe the tokens of a data file."""
    rate = info.rate
    cost = f"{rate.nominal:.4f} nominal, {rate.entropy_coded:.4f} entropy coded"
    errors = ", ".join(f"{name} {value:.4f}" for name, value in info.round_trip.vrmse.items())
    return "\n".join(
        [
            *usage_table(info.usages),
            "",
            *vocabulary_lines(info.vocabulary, info.num_samples),
            *unseen_lines(info.unseen),
            f"bits per pixel {cost}",
            f"round trip     {describe_round_trip(info.round_trip)}",
            f"VRMSE          {errors}",
        ]
    )


def describe_round_trip(trip: RoundTrip) -> str:
    """Say whether decoding was exact, and on how many samples."""
    skipped = f"; {trip.num_skipped} with codes outside the vocabulary left out" if trip.num_skipped else ""
    verdict = "exact" if trip.exact else "NOT EXACT"
    return (
        f"{verdict}: max |decode(encode(x)) - reconstruct(x)| = {trip.max_difference:g} "
        f"on {trip.num_samples} samples{skipped}"
    )


def usage_table(usages: Sequence[ScaleUsage]) -> list[str]:
    """Lay out one line for each scale, under a header."""
    rows = [
        (
            usage.name,
            str(math.prod(usage.scale)),
            f"{usage.codes_in_use}/{usage.codebook_size}",
            f"{usage.perplexity:.1f}",
            f"{usage.perplexity / usage.codebook_size:.3f}",
            f"{usage.entropy_bits:.2f}",
        )
        for usage in usages
    ]
    widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (COLUMNS, *rows)
    ]


def vocabulary_lines(vocabulary: Vocabulary, num_samples: int) -> list[str]:
    """Describe sizes and the scales that an autoregressive model has to predict."""
    first = vocabulary.first_trainable_scale
    choice = (
        f"scale {first} ({'x'.join(map(str, vocabulary.scales[first]))})"
        if first < vocabulary.num_scales
        else "none: every scale has a single code"
    )
    total = sum(len(book) for book in vocabulary.codebooks)
    return [
        f"samples        {num_samples}, {vocabulary.tokens_per_sample} tokens each",
        f"vocabulary     {vocabulary.effective_vocab_size} codes in use of {total}",
        f"first trainable {choice}",
    ]


def unseen_lines(unseen: Sequence[str]) -> list[str]:
    """Align the lines on unseen codes."""
    return [f"unseen codes   {line}" for line in unseen]
