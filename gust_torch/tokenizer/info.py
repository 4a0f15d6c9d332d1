"""What a checkpoint's tokens are like on given data: usage, cost, and whether they decode exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.loader import collate_frames
from gust_torch.metrics.errors import vrmse
from gust_torch.tokenizer.encode import encode_data, open_data
from gust_torch.tokenizer.options import Compute, DataSelection
from gust_torch.tokenizer.pipeline import load_with_vocabulary
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.usage import BitRate, ScaleUsage, bit_rate, scale_usage
from gust_torch.tokenizer.vocabulary import Vocabulary, describe_unseen

__all__ = ["RoundTrip", "TokenInfo", "check_round_trip", "token_info"]


@dataclass(frozen=True)
class RoundTrip:
    """Comparison of decode(encode(x)) with reconstruct(x).

    Attributes:
        num_samples: samples whose codes the vocabulary holds, which were compared.
        num_skipped: samples with a code outside the vocabulary, for which equality is not expected.
        max_difference: largest absolute difference, in field units; 0 where the two agree bit for bit.
        vrmse: of reconstruct(x) against x, a value for each field, mean over all samples looked at.
    """

    num_samples: int
    num_skipped: int
    max_difference: float
    vrmse: dict[str, float]

    @property
    def exact(self) -> bool:
        """Whether the two agree bit for bit; a NaN is not agreement."""
        return self.max_difference == 0.0


@dataclass(frozen=True)
class TokenInfo:
    """Everything that `info` prints.

    Attributes:
        num_samples: samples encoded.
        vocabulary: the numbering, new or reused.
        usages: code usage of each scale.
        rate: bits per pixel.
        unseen: a line for each scale with codes outside a reused vocabulary.
        round_trip: exactness and reconstruction error.
    """

    num_samples: int
    vocabulary: Vocabulary
    usages: tuple[ScaleUsage, ...]
    rate: BitRate
    unseen: list[str]
    round_trip: RoundTrip


def token_info(
    checkpoint: str,
    selection: DataSelection,
    *,
    fit_from: str | None = None,
    compute: Compute | None = None,
    check_samples: int = 256,
) -> TokenInfo | None:
    """Encode a data file and look at its tokens; nothing is written.

    Args:
        checkpoint: a training checkpoint.
        selection: the samples.
        fit_from: token file whose vocabulary to use; by default that of the codes that occur.
        compute: devices and batches.
        check_samples: evenly spaced samples to decode again.

    Returns:
        The findings; None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together.
    """
    if check_samples < 1:
        raise ValueError(f"expected check_samples >= 1, got {check_samples}")
    tokenizer, vocabulary = load_with_vocabulary(checkpoint, fit_from)
    dataset = open_data(tokenizer.model, selection)
    with encode_data(tokenizer, dataset, compute or Compute()) as encoded:
        if encoded is None:
            return None
        scales = tokenizer.model.scales
        if vocabulary is None:
            vocabulary = Vocabulary.from_counts(scales, tokenizer.codebooks, encoded.counts)
        tokenizer.to(encoded.device).use_vocabulary(vocabulary)
        usages = scale_usage(scales, encoded.counts)
        spec = tokenizer.model.spec
        return TokenInfo(
            num_samples=dataset.n_samples,
            vocabulary=vocabulary,
            usages=usages,
            rate=bit_rate(usages, spec.num_channels, spec.grid),
            unseen=describe_unseen(vocabulary, vocabulary.unseen_counts(encoded.counts), dataset.n_samples),
            round_trip=check_round_trip(tokenizer, dataset, check_samples),
        )


def check_round_trip(tokenizer: VQVAETokenizer, dataset: HDF5Dataset, num_samples: int) -> RoundTrip:
    """Decode evenly spaced samples from their tokens and without them, in batches as the encoding pass had.

    Args:
        tokenizer: with a vocabulary, on the device of the encoding pass.
        dataset: the samples.
        num_samples: how many to look at.
    """
    n = dataset.n_samples
    chosen = np.unique(np.linspace(0, n - 1, min(num_samples, n)).round().astype(int))
    batch_size = tokenizer.predict_batch_size or len(chosen)
    original = torch.from_numpy(tokenizer.vocabulary.unified_to_original)
    errors: list[torch.Tensor] = []
    gaps: list[torch.Tensor] = []
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        # A short batch is filled up, so that no kernel rounds differently than in the encoding pass.
        padded = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
        x = collate_frames(dataset.__getitems__(padded.tolist()))
        tokens = tokenizer.encode(x)
        decoded, direct = tokenizer.decode(tokens), tokenizer.reconstruct(x)
        held = (original[tokens.cpu()] == tokenizer.tokenize(x).cpu()).all(dim=1)[: len(rows)]
        gaps.append((decoded - direct).abs().amax(dim=(1, 2, 3)).cpu()[: len(rows)][held])
        errors.append(vrmse(direct, x.to(direct))[: len(rows)].cpu())
    gap = torch.cat(gaps)
    means = torch.cat(errors).mean(dim=0).tolist()
    return RoundTrip(
        num_samples=len(gap),
        num_skipped=len(chosen) - len(gap),
        max_difference=float(gap.max()) if len(gap) else 0.0,
        vrmse=dict(zip(dataset.spec.names, means, strict=True)),
    )
