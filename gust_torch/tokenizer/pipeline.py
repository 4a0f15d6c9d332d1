"""From a data file to a token file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.tokenizer.encode import encode_data, open_data
from gust_torch.tokenizer.npz import TokenSource, read_vocabulary, refuse_existing, write_tokens
from gust_torch.tokenizer.options import Compute, DataSelection
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.usage import ScaleUsage, scale_usage
from gust_torch.tokenizer.vocabulary import Vocabulary, describe_unseen
from solvers.common.files import file_sha256
from solvers.common.provenance import provenance

__all__ = ["Saved", "load_with_vocabulary", "save_tokens"]


@dataclass(frozen=True)
class Saved:
    """What `save_tokens` wrote.

    Attributes:
        num_samples: n.
        vocabulary: the numbering in the file.
        usages: code usage of each scale in these data.
        unseen: a line for each scale with codes outside a reused vocabulary.
    """

    num_samples: int
    vocabulary: Vocabulary
    usages: tuple[ScaleUsage, ...]
    unseen: list[str]


def save_tokens(
    checkpoint: str,
    selection: DataSelection,
    output: str,
    *,
    fit_from: str | None = None,
    compute: Compute | None = None,
    overwrite: bool = False,
) -> Saved | None:
    """Encode a data file, each sample once, and write the token file.

    Args:
        checkpoint: a training checkpoint.
        selection: the samples.
        output: the `.npz` to write.
        fit_from: token file whose vocabulary to reuse; by default the codes that occur make up a new one.
        compute: devices and batches.
        overwrite: whether `output` may be replaced.

    Returns:
        What was written; None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together; names the remedy.
        FileExistsError: if `output` exists and `overwrite` is false.
        FileNotFoundError: if the folder of `output` or `fit_from` does not exist.
    """
    target = Path(output)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} for --output {output}; create it first")
    refuse_existing(target, overwrite=overwrite)
    tokenizer, vocabulary = load_with_vocabulary(checkpoint, fit_from)
    dataset = open_data(tokenizer.model, selection)
    with encode_data(tokenizer, dataset, compute or Compute(), parent=target.parent) as encoded:
        if encoded is None:
            return None
        if vocabulary is None:
            vocabulary = Vocabulary.from_counts(tokenizer.model.scales, tokenizer.codebooks, encoded.counts)
        source = describe_source(checkpoint, tokenizer, selection, dataset, fit_from)
        write_tokens(target, encoded.codes, vocabulary, source, overwrite=overwrite)
        unseen = describe_unseen(vocabulary, vocabulary.unseen_counts(encoded.counts), dataset.n_samples)
        usages = scale_usage(vocabulary.scales, encoded.counts)
    return Saved(dataset.n_samples, vocabulary, usages, unseen)


def load_with_vocabulary(checkpoint: str, fit_from: str | None) -> tuple[VQVAETokenizer, Vocabulary | None]:
    """Load a checkpoint and, where named, a vocabulary that was built on its codebooks.

    Raises:
        ValueError: if they do not belong together.
    """
    tokenizer = VQVAETokenizer.from_checkpoint(checkpoint)
    if fit_from is None:
        return tokenizer, None
    vocabulary = read_vocabulary(fit_from)
    vocabulary.require_codebooks(tokenizer.codebooks, source=fit_from)
    return tokenizer, vocabulary


def describe_source(
    checkpoint: str,
    tokenizer: VQVAETokenizer,
    selection: DataSelection,
    dataset: HDF5Dataset,
    fit_from: str | None,
) -> TokenSource:
    """Gather what a token file says of its origin."""
    model = tokenizer.model
    paths = [selection.data_path] if isinstance(selection.data_path, str) else list(selection.data_path)
    config: dict[str, Any] = {
        "architecture": model.architecture(),
        "spec": model.spec.to_dict(),
        "provenance": {
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": file_sha256(Path(checkpoint)),
            "data_path": [str(path) for path in paths],
            "fields": list(dataset.spec.names),
            "sample_start": selection.sample_start,
            "sample_stop": selection.sample_start + dataset.n_samples,
            "vocabulary_from": fit_from,
            **provenance(),
        },
    }
    return TokenSource(
        field_names=model.spec.names,
        mean=model.mean.flatten().cpu().numpy(),
        std=model.std.flatten().cpu().numpy(),
        trajectory=dataset.trajectories,
        time=dataset.times,
        config=config,
    )
