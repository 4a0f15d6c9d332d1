"""What the commands do: from a data file to a token file, and a look at what the tokens are like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.metrics.errors import vrmse
from gust_torch.predict import Ranks, RowFile, allocate_rows
from gust_torch.tokenizer.encode import encode_data, open_data, warn_of_other_scale
from gust_torch.tokenizer.npz import TokenSource, refuse_existing, write_tokens
from gust_torch.tokenizer.options import InfoOptions, SaveOptions, TokenOptions
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.usage import BitRate, ScaleUsage, bit_rate, scale_usage
from gust_torch.tokenizer.vocabulary import Vocabulary, describe_unseen
from solvers.common.files import WriterLock, file_sha256
from solvers.common.provenance import provenance
from solvers.common.urls import redact

__all__ = ["Encoded", "RoundTrip", "TokenInfo", "check_round_trip", "save_tokens", "token_info"]

CODES = ".codes.part"


@dataclass(frozen=True)
class Encoded:
    """What a pass over data found.

    Attributes:
        num_samples: n.
        vocabulary: the numbering in force, new or reused.
        counts: S arrays (K_k,), occurrences of each original code.
    """

    num_samples: int
    vocabulary: Vocabulary
    counts: tuple[NDArray[np.int64], ...]

    @property
    def usages(self) -> tuple[ScaleUsage, ...]:
        """Code usage of each scale in these data."""
        return scale_usage(self.vocabulary.scales, self.counts)

    @property
    def unseen(self) -> list[str]:
        """A line for each scale with codes outside a reused vocabulary."""
        return describe_unseen(self.vocabulary, self.vocabulary.unseen_counts(self.counts), self.num_samples)


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
        encoded: codes of all samples.
        rate: bits per pixel.
        round_trip: exactness and reconstruction error.
    """

    encoded: Encoded
    rate: BitRate
    round_trip: RoundTrip


def save_tokens(options: SaveOptions) -> Encoded | None:
    """Encode data, each sample once, and write the token file.

    Returns:
        What was written; None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together; names the remedy.
        OSError: if the output exists and may not be replaced, is being written by another process, has no
            folder or no room on the disk.
    """
    target = Path(options.output)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} for --output {target}; create it first")
    refuse_existing(target, overwrite=options.overwrite)
    tokenizer, vocabulary = load_with_vocabulary(options)
    dataset = open_data(tokenizer.model, options)
    warn_of_other_scale(tokenizer.model, dataset, options)
    with make_ranks(options) as ranks, codes_file(target, tokenizer, dataset, ranks) as path:
        encoded = encode(tokenizer, vocabulary, dataset, options, ranks, path)
        if ranks.rank:
            return None
        source = describe_source(options, tokenizer, dataset, encoded.num_samples)
        codes = np.load(path, mmap_mode="r")
        write_tokens(target, codes, encoded.vocabulary, source, overwrite=options.overwrite)
    return encoded


def token_info(options: InfoOptions) -> TokenInfo | None:
    """Encode data and look at their tokens; nothing is written.

    Returns:
        The findings; None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together.
    """
    tokenizer, vocabulary = load_with_vocabulary(options)
    dataset = open_data(tokenizer.model, options)
    warn_of_other_scale(tokenizer.model, dataset, options)
    with make_ranks(options) as ranks:
        ranks.start()
        encoded = encode(tokenizer, vocabulary, dataset, options, ranks)
        if ranks.rank:
            return None
    tokenizer.use_vocabulary(encoded.vocabulary)
    spec = tokenizer.model.spec
    return TokenInfo(
        encoded,
        rate=bit_rate(encoded.usages, spec.num_channels, spec.grid),
        round_trip=check_round_trip(tokenizer, dataset, options.check_samples),
    )


def make_ranks(options: TokenOptions) -> Ranks:
    """Choose the devices.

    Raises:
        ValueError: if this machine lacks them.
    """
    return Ranks(devices=options.devices, accelerator=options.accelerator, strategy=options.strategy)


@contextmanager
def codes_file(target: Path, tokenizer: VQVAETokenizer, dataset: HDF5Dataset, ranks: Ranks) -> Iterator[Path]:
    """Start the processes and yield the path of a hidden .npy for all original codes, beside the output.

    The output is locked meanwhile. What killed processes left of such files in the folder is removed.
    """
    ranks.start()
    path = target.with_name(f".{target.name}{CODES}")
    locks: list[WriterLock] = []

    def prepare() -> None:
        remove_leftovers(target.parent)
        locks.append(WriterLock(target))
        shape = (len(dataset), tokenizer.tokens_per_sample)
        allocate_rows(path, shape, np.dtype(tokenizer.code_dtype))

    try:
        ranks.agree(prepare)
        yield path
    finally:
        for lock in locks:  # of the first process
            path.unlink(missing_ok=True)
            lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove the codes of runs that were killed; those of a run at work are locked and stay."""
    for path in folder.glob(f".*{CODES}"):
        with suppress(BlockingIOError):
            lock = WriterLock(path.with_name(path.name[1:].removesuffix(CODES)))
            path.unlink(missing_ok=True)
            lock.release()


def load_with_vocabulary(options: TokenOptions) -> tuple[VQVAETokenizer, Vocabulary | None]:
    """Load a checkpoint and, where named, a vocabulary that was built on its codebooks.

    Raises:
        ValueError: if they do not belong together.
    """
    tokenizer = VQVAETokenizer.from_checkpoint(options.checkpoint)
    if options.fit_from is None:
        return tokenizer, None
    return tokenizer, tokenizer.use_vocabulary(options.fit_from).vocabulary


def encode(
    tokenizer: VQVAETokenizer,
    vocabulary: Vocabulary | None,
    dataset: HDF5Dataset,
    options: TokenOptions,
    ranks: Ranks,
    path: Path | None = None,
) -> Encoded:
    """Encode all samples, into a file where one is named, and number the codes that occur.

    Args:
        tokenizer: with the trained model.
        vocabulary: the numbering, if one is reused.
        dataset: the samples.
        options: how to load.
        ranks: the processes.
        path: .npy for the codes (n, L).
    """
    rows = None if path is None else RowFile(path)
    num_samples = ranks.agree(lambda: len(dataset) if rows is None else rows.shape[0])
    counts = encode_data(
        tokenizer,
        dataset,
        ranks,
        num_samples=num_samples,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        write=None if rows is None else rows.write,
    )
    if rows is not None:
        rows.close()
    if vocabulary is None:
        vocabulary = Vocabulary.from_counts(tokenizer.model.scales, tokenizer.codebooks, counts)
    return Encoded(num_samples, vocabulary, counts)


def describe_source(
    options: SaveOptions, tokenizer: VQVAETokenizer, dataset: HDF5Dataset, num_samples: int
) -> TokenSource:
    """Gather what a token file says of its origin."""
    model = tokenizer.model
    config: dict[str, Any] = {
        "architecture": model.architecture(),
        "spec": model.spec.to_dict(),
        "provenance": {
            "checkpoint": redact(options.checkpoint),
            "checkpoint_sha256": file_sha256(Path(options.checkpoint)),
            "weights_sha256": tokenizer.weights_sha256,
            "data_path": [redact(path) for path in options.data_path],
            "fields": list(dataset.spec.names),
            "sample_start": options.sample_start,
            "sample_stop": options.sample_start + num_samples,
            "vocabulary_from": options.fit_from and redact(options.fit_from),
            **provenance(),
        },
    }
    return TokenSource(
        field_names=model.spec.names,
        mean=model.mean.flatten().cpu().numpy(),
        std=model.std.flatten().cpu().numpy(),
        trajectory=dataset.trajectories[:num_samples],
        time=dataset.times[:num_samples],
        config=config,
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
        x = dataset.__getitems__(padded.tolist()).stacked
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
