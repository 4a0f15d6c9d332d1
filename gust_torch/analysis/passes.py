"""The one pass over the data: tokens, reconstruction, and every sum that the report and the figures need."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from gust_torch.analysis.sums import ErrorSums, FloorFrames, SpectrumSums
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.metrics.errors import vrmse
from gust_torch.metrics.histogram import ValueHistogram
from gust_torch.models.token_model import TokenModel
from gust_torch.spec import FieldSpec
from gust_torch.tokenizer.options import DataOptions
from gust_torch.tokenizer.usage import ScaleUsage, scale_usage

NUM_EXAMPLES = 3


class Example(NamedTuple):
    """A sample for the picture of reconstructions: (c, h, w) fields, (c,) errors; time NaN if unknown."""

    position: int
    time: float
    reference: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    vrmse: NDArray[np.float32]


@dataclass
class Analysis:
    """All that a pass leaves; of each sample no more than its errors.

    Attributes:
        frames: Some frames, for the transform code.
        usages: Codes in use, of each scale.
        examples: Up to three samples, evenly spaced.
    """

    spec: FieldSpec
    errors: ErrorSums
    spectra: SpectrumSums
    histogram: ValueHistogram
    frames: FloorFrames
    num_samples: int = 0
    usages: tuple[ScaleUsage, ...] = ()
    examples: list[Example] = field(default_factory=list)

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add a batch ``(b, c, h, w)`` of fields and their reconstructions."""
        # The histogram comes first: it refuses NaN and infinity, which would poison the other sums.
        self.histogram.update(x, x_hat)
        self.errors.update(x, x_hat)
        self.spectra.update(x, x_hat)
        self.frames.update(x)
        self.num_samples += len(x)


@torch.inference_mode()
def analyze(
    model: TokenModel,
    dataset: HDF5Dataset,
    batch_size: int = DataOptions.batch_size,
    num_workers: int = DataOptions.num_workers,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] = lambda samples: None,
) -> Analysis:
    """Tokenize, decode and score every sample of a dataset, once.

    What is scored is ``decode(tokenize(x))``: what a reader of the tokens gets. The model is moved to the
    device and put in evaluation mode; ``on_batch`` gets the number of samples of each finished batch.

    Raises:
        ValueError: The data are not what the model takes, or a value is not finite.
    """
    device = torch.device(device)
    model = model.to(device).eval()
    spec = dataset.spec
    histogram = ValueHistogram(model.mean.flatten(), model.std.flatten())
    frames = FloorFrames(spec, len(dataset), device)
    analysis = Analysis(spec, ErrorSums(), SpectrumSums(spec, device), histogram, frames)
    counts = [np.zeros(size, dtype=np.int64) for size in model.vocab_sizes]
    # In the middles of equal parts of the range.
    number = min(NUM_EXAMPLES, len(dataset))
    wanted = [len(dataset) * (2 * i + 1) // (2 * number) for i in range(number)]
    loader: DataLoader[Tensor] = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        start = analysis.num_samples
        x = batch.to(device, non_blocking=True)
        indices = model.tokenize(x)
        x_hat = model.decode(indices)
        analysis.update(x, x_hat)
        for count, index in zip(counts, indices, strict=True):
            count += np.bincount(index.flatten().cpu().numpy(), minlength=len(count))
        for position in (p for p in wanted if start <= p < start + len(x)):
            row = slice(position - start, position - start + 1)
            values = (x[row], x_hat[row], vrmse(x_hat[row], x[row]))
            arrays = (value[0].float().cpu().numpy().copy() for value in values)  # the batch is freed
            analysis.examples.append(Example(position, float(dataset.times[position]), *arrays))
        on_batch(len(x))
    analysis.usages = scale_usage(model.scales, counts)
    return analysis
