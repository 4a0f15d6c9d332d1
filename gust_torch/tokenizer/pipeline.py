"""What the commands do: from a data file to a token file, and a look at what the tokens are like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gust_torch.checkpoint import model_digest
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.identity import evenly_spaced, warn_of_scale
from gust_torch.latents.frames import require_spec
from gust_torch.metrics.errors import vrmse
from gust_torch.models.token_model import TokenModel
from gust_torch.predict import Ranks, RowFile, allocate_rows
from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.npz import TokenSource, refuse_existing, write_tokens
from gust_torch.tokenizer.options import DataOptions, InfoOptions, SaveOptions, TokenOptions
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.usage import BitRate, ScaleUsage, bit_rate, scale_usage
from gust_torch.tokenizer.vocabulary import Vocabulary
from solvers.common.files import WriterLock, file_sha256
from solvers.common.provenance import provenance
from solvers.common.urls import redact

CODES = ".codes.part"
SCALE_SAMPLES = 16


@dataclass(frozen=True)
class Encoded:
    """What a pass over data found: the numbering in force, new or reused, and how often each code occurred.

    `counts` are S arrays (K_k,), `spec` is of the fields.
    """

    num_samples: int
    vocabulary: Vocabulary
    counts: tuple[NDArray[np.int64], ...]
    spec: FieldSpec

    @property
    def usages(self) -> tuple[ScaleUsage, ...]:
        """Code usage of each scale in these data."""
        return scale_usage(self.vocabulary.scales, self.counts)

    @property
    def rate(self) -> BitRate:
        """Bits per pixel."""
        return bit_rate(self.usages, self.spec.num_channels, self.spec.grid)

    @property
    def unseen(self) -> list[str]:
        """A line for each scale with codes outside a reused vocabulary."""
        pairs = zip(self.counts, self.vocabulary.codes_in_use, strict=True)
        numbers = [int(count.sum() - count[codes].sum()) for count, codes in pairs]
        return self.vocabulary.describe_unseen(numbers, self.num_samples)


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


def open_data(model: TokenModel, options: DataOptions) -> tuple[HDF5Dataset, list[str]]:
    """Open the samples; also return channels whose values are of another order than in training, and warn.

    Raises:
        ValueError: if the data cannot be read, or their channels, grid, boundaries or lengths differ from the
            model's.
    """
    dataset = HDF5Dataset(
        options.data_path,
        fields=model.spec.names if options.fields is None else options.fields,
        sample_start=options.sample_start,
        sample_stop=options.sample_stop,
    )
    source = redact(", ".join(options.data_path))
    require_spec(source, model.spec, dataset.spec)
    some = read_frames(dataset, evenly_spaced(len(dataset), SCALE_SAMPLES))
    deviations = some.double().std((0, 2, 3), correction=0)
    trained = model.std.flatten().cpu().numpy()
    return dataset, warn_of_scale(trained, deviations.numpy(), dataset.spec.names, source=source)


def read_frames(dataset: HDF5Dataset, rows: Sequence[int]) -> Tensor:
    """Read samples (b, c, h, w)."""
    return dataset.__getitems__(rows).stacked


def save_tokens(options: SaveOptions) -> Encoded | None:
    """Encode data, each sample once, and write the token file; return None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together; names the remedy.
        OSError: if the output exists and may not be replaced, is being written by another process, has no
            folder or no room on the disk.
    """
    target = Path(options.output)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} for --output {target}; create it first")
    refuse_existing(target, overwrite=options.overwrite)
    tokenizer, dataset, ranks = load(options)
    with ranks, codes_file(target, tokenizer, dataset, ranks) as path:
        rows = RowFile(path)
        encoded = encode(tokenizer, dataset, options, ranks, rows.write)
        rows.close()
        if ranks.rank:
            return None
        source = describe_source(options, tokenizer, dataset, encoded.num_samples)
        codes = np.load(path, mmap_mode="r")
        write_tokens(target, codes, encoded.vocabulary, source, overwrite=options.overwrite)
    return encoded


def token_info(options: InfoOptions) -> tuple[Encoded, RoundTrip] | None:
    """Encode data and look at their tokens, writing nothing; return None in all processes but the first.

    Raises:
        ValueError: if checkpoint, data or vocabulary do not fit together.
    """
    tokenizer, dataset, ranks = load(options)
    with ranks:
        ranks.fabric.launch()
        encoded = encode(tokenizer, dataset, options, ranks)
        if ranks.rank:
            return None
    tokenizer.use_vocabulary(encoded.vocabulary)
    return encoded, check_round_trip(tokenizer, dataset, options.check_samples)


def load(options: TokenOptions) -> tuple[VQVAETokenizer, HDF5Dataset, Ranks]:
    """Load a checkpoint, the vocabulary where one is named, and the data, all of which must fit together."""
    tokenizer = VQVAETokenizer.from_checkpoint(options.checkpoint, search=options.search)
    if options.fit_from is not None:
        tokenizer.use_vocabulary(options.fit_from)
    dataset, _ = open_data(tokenizer.model, options)
    ranks = Ranks(devices=options.devices, accelerator=options.accelerator, strategy=options.strategy)
    return tokenizer, dataset, ranks


@contextmanager
def codes_file(target: Path, tokenizer: VQVAETokenizer, dataset: HDF5Dataset, ranks: Ranks) -> Iterator[Path]:
    """Start the processes and yield the path of a hidden .npy for all original codes, beside the output.

    The output is locked meanwhile. What killed processes left of such files in the folder is removed.
    """
    ranks.fabric.launch()
    path = target.with_name(f".{target.name}{CODES}")
    with ExitStack() as stack:

        def prepare() -> None:
            for left in target.parent.glob(f".*{CODES}"):
                with suppress(BlockingIOError), WriterLock(left.with_name(left.name[1 : -len(CODES)])):
                    left.unlink(missing_ok=True)
            stack.enter_context(WriterLock(target))
            stack.callback(path.unlink, missing_ok=True)
            allocate_rows(path, (len(dataset), sum(tokenizer.areas)), tokenizer.code_dtype)

        ranks.agree(prepare)
        yield path


def encode(
    tokenizer: VQVAETokenizer,
    dataset: HDF5Dataset,
    options: DataOptions,
    ranks: Ranks,
    write: Callable[[int, NDArray[Any]], None] = lambda start, codes: None,
) -> Encoded:
    """Encode every sample once, and number the codes that occur unless the tokenizer has a vocabulary.

    All processes call it, and each takes a share of the batches, which are the same for any number of
    processes, and so are the codes: see `VQVAETokenizer.predict_batch_size`. `write` takes the number of the
    first sample and the codes (n, L) of each batch of this process. The tokenizer is left on the device.
    """
    num_samples = ranks.agree(lambda: len(dataset))
    size = min(options.batch_size, num_samples)
    tokenizer.predict_batch_size = size
    tokenizer.to(ranks.fabric.device)
    counts = [np.zeros(count, dtype=np.int64) for count in tokenizer.model.vocab_sizes]

    def keep(start: int, codes: Tensor) -> None:
        for count, found in zip(counts, tokenizer.count(codes), strict=True):
            count += found
        write(start, codes.numpy())

    ranks.predict(
        tokenizer.predict_step,
        partial(read_frames, dataset),
        [range(num_samples)[start : start + size] for start in range(0, num_samples, size)],
        keep,
        title="tokens",
        num_workers=options.num_workers,
    )
    total = tuple(ranks.sum(torch.from_numpy(count)).numpy() for count in counts)
    vocabulary = tokenizer._vocabulary
    if vocabulary is None:
        vocabulary = Vocabulary.from_counts(tokenizer.model.scales, tokenizer.codebooks, total)
    return Encoded(num_samples, vocabulary, total, tokenizer.model.spec)


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
            "weights_sha256": model_digest(model),
            "data_path": [redact(path) for path in options.data_path],
            "fields": list(dataset.spec.names),
            "search": options.search,
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
    """Decode evenly spaced samples from their tokens and without, in batches as the encoding pass had."""
    chosen = evenly_spaced(len(dataset), num_samples)
    size = tokenizer.predict_batch_size or len(chosen)
    original = torch.from_numpy(tokenizer.vocabulary.unified_to_original)
    errors: list[Tensor] = []
    gaps: list[Tensor] = []
    for start in range(0, len(chosen), size):
        rows = chosen[start : start + size]
        # A short batch is filled up, so that no kernel rounds differently than in the encoding pass.
        x = read_frames(dataset, rows + rows[-1:] * (size - len(rows)))
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
