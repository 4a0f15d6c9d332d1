"""The one pass over the data: tokens, reconstruction, and every sum that the report and the figures need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from gust_torch.analysis.floor import Floor, FloorFrames
from gust_torch.analysis.sums import CodeSums, ErrorSums, SpectrumSums
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.data.loader import collate_frames
from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.histogram import ValueHistogram
from gust_torch.models.token_model import TokenModel
from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.options import DataOptions
from gust_torch.tokenizer.usage import BitRate, bit_rate, scale_usage

NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One sample for the picture of reconstructions.

    Attributes:
        position: Position in the analyzed range.
        time: Simulation time; NaN where the file has none.
        reference: ``(c, h, w)`` fields.
        reconstruction: ``(c, h, w)`` decoded tokens.
        vrmse: ``(c,)``.
    """

    position: int
    time: float
    reference: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    vrmse: NDArray[np.float32]


@dataclass(frozen=True)
class Analysis:
    """All that a pass leaves; of each sample no more than its errors.

    Attributes:
        spec: Fields, grid and domain of the data.
        num_samples: Samples seen.
        errors: Pointwise errors.
        spectra: Spectra by shell.
        histogram: Values of data and reconstruction.
        codes: Codes in use.
        examples: Up to three samples, evenly spaced.
        rate: Bits per pixel of the tokens.
        floors: Transform code and bound at the tokens' entropy-coded rate, by field.
    """

    spec: FieldSpec
    num_samples: int
    errors: ErrorSums
    spectra: SpectrumSums
    histogram: ValueHistogram
    codes: CodeSums
    examples: tuple[Example, ...]
    rate: BitRate
    floors: Mapping[str, Floor]


@torch.inference_mode()
def analyze(
    model: TokenModel,
    dataset: HDF5Dataset,
    *,
    batch_size: int = DataOptions.batch_size,
    num_workers: int = DataOptions.num_workers,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] = lambda samples: None,
) -> Analysis:
    """Tokenize, decode and score every sample of a dataset, once.

    What is scored is ``decode(tokenize(x))``: what a reader of the tokens gets.

    Args:
        model: Trained model; moved to ``device`` and put in evaluation mode.
        dataset: Raw physical fields (``normalize=False``), items ``(c, h, w)``.
        batch_size: Samples per batch.
        num_workers: Reader processes.
        device: Where the model and the metrics run.
        on_batch: Called with the number of samples of each finished batch.

    Raises:
        ValueError: The data are not what the model takes, or a value is not finite.
    """
    device = torch.device(device)
    model = model.to(device).eval()
    errors = ErrorSums()
    spectra = SpectrumSums(dataset.spec, device)
    histogram = ValueHistogram(model.mean.flatten(), model.std.flatten())
    codes = CodeSums(model.vocab_sizes)
    examples: list[Example] = []
    frames = FloorFrames(dataset.spec, len(dataset), device)
    wanted = _example_positions(len(dataset))

    loader: DataLoader[Tensor] = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate_frames,
        pin_memory=device.type == "cuda",
    )
    start = 0
    for batch in loader:
        x = batch.to(device, non_blocking=True)
        indices = model.tokenize(x)
        x_hat = model.decode(indices)
        # The histogram comes first: it refuses NaN and infinity, which would poison the other sums.
        histogram.update(x, x_hat)
        errors.update(x, x_hat)
        spectra.update(x, x_hat)
        codes.update(indices)
        frames.update(x)
        for position in (p for p in wanted if start <= p < start + len(x)):
            examples.append(_example(position, float(dataset.times[position]), x, x_hat, position - start))
        start += len(x)
        on_batch(len(x))
    usages = scale_usage(model.scales, [counts.numpy() for counts in codes.counts])
    rate = bit_rate(usages, dataset.spec.num_channels, dataset.spec.grid)
    floors = {
        name: floor
        for channel, name in enumerate(dataset.spec.names)
        if (floor := frames.floor(channel, rate.entropy_coded)) is not None
    }
    return Analysis(dataset.spec, start, errors, spectra, histogram, codes, tuple(examples), rate, floors)


def _example_positions(num_samples: int) -> list[int]:
    """Up to ``NUM_EXAMPLES`` evenly spaced positions, in the middles of equal parts of the range."""
    count = min(NUM_EXAMPLES, num_samples)
    return [num_samples * (2 * i + 1) // (2 * count) for i in range(count)]


def _example(position: int, time: float, x: Tensor, x_hat: Tensor, row: int) -> Example:
    """Keep one sample of a batch, copied so that the batch is freed."""
    error = vrmse(x_hat[row : row + 1], x[row : row + 1])[0]
    reference, reconstruction = (field[row].float().cpu().numpy().copy() for field in (x, x_hat))
    return Example(position, time, reference, reconstruction, error.float().cpu().numpy())
