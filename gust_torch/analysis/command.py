"""From a checkpoint and a data file to a folder of figures and numbers."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from gust_torch.analysis.output import write_analysis
from gust_torch.analysis.passes import Analysis, analyze
from gust_torch.analysis.report import spectral_errors, summarize
from gust_torch.tokenizer.encode import open_data
from gust_torch.tokenizer.options import DataSelection
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.usage import ScaleUsage, bit_rate, scale_usage
from solvers.common.progress import Progress
from solvers.common.provenance import provenance


@dataclass(frozen=True)
class Written:
    """What the command leaves.

    Attributes:
        analysis: The sums.
        metrics: Content of ``metrics.json``.
        usages: Code usage of each scale.
        files: Files written.
        seconds: Time of the pass over the data.
    """

    analysis: Analysis
    metrics: dict[str, object]
    usages: tuple[ScaleUsage, ...]
    files: tuple[Path, ...]
    seconds: float


def analyze_checkpoint(
    checkpoint: str,
    selection: DataSelection,
    output_dir: Path,
    *,
    batch_size: int,
    num_workers: int,
    accelerator: str,
) -> Written:
    """Score the tokens of a checkpoint's model on some data, and write all figures and numbers.

    Args:
        checkpoint: Checkpoint of ``scripts/train.py``.
        selection: Which samples of which files.
        output_dir: Created if missing; older results in it are replaced.
        batch_size: Samples at once.
        num_workers: Reader processes.
        accelerator: auto, cpu, gpu (cuda), or mps.

    Raises:
        ValueError: A file that can't be used, data that the model does not take, no such device.
    """
    device = choose_device(accelerator)
    if batch_size < 1 or num_workers < 0:
        raise ValueError(f"expected batch_size >= 1 and num_workers >= 0, got {batch_size} and {num_workers}")
    model = VQVAETokenizer.from_checkpoint(checkpoint).model
    dataset = open_data(model, selection)
    # Before the pass, not after it: a folder that cannot be made would waste it.
    output_dir.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    with Progress(len(dataset), unit="sample", description="analysis") as progress:
        analysis = analyze(
            model,
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            on_batch=progress.update,
        )
    seconds = perf_counter() - start
    paths = [selection.data_path] if isinstance(selection.data_path, str) else list(selection.data_path)
    metrics: dict[str, object] = {
        "checkpoint": str(checkpoint),
        "data_path": [str(path) for path in paths],
        "sample_start": selection.sample_start,
        "sample_stop": selection.sample_start + analysis.num_samples,
        "batch_size": batch_size,
        "device": device.type,
        "torch_version": str(torch.__version__),
        **provenance(),
        **summarize(analysis, model),
        "architecture": model.architecture(),
    }
    usages = scale_usage(model.scales, [counts.numpy() for counts in analysis.codes.counts])
    return Written(analysis, metrics, usages, tuple(write_analysis(analysis, metrics, output_dir)), seconds)


def choose_device(accelerator: str) -> torch.device:
    """Return the device of ``--accelerator``.

    Raises:
        ValueError: The name is unknown, or this machine has no such device.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = {"auto": "cuda" if available["cuda"] else "cpu", "gpu": "cuda"}.get(accelerator, accelerator)
    if name not in available:
        raise ValueError(f"--accelerator {accelerator} is not one of auto, cpu, gpu, cuda, mps")
    if not available[name]:
        raise ValueError(f"--accelerator {accelerator}: no such device here; use --accelerator cpu")
    return torch.device(name)


def describe(written: Written) -> str:
    """Return a short table of the main numbers, then the files, for people."""
    analysis = written.analysis
    rate = bit_rate(written.usages, analysis.spec.num_channels, analysis.spec.grid)
    rows = [
        ("samples", f"{analysis.num_samples}, {analysis.num_samples / written.seconds:.3g} a second"),
        ("bits per pixel", f"{rate.nominal:.4f} ({rate.entropy_coded:.4f} entropy coded)"),
        (
            "perplexity / K",
            ", ".join(f"{u.name} {u.perplexity / u.codebook_size:.2f}" for u in written.usages),
        ),
    ]
    for channel, name in enumerate(analysis.spec.names):
        vrmse = analysis.errors.summary("vrmse", channel)
        bands = spectral_errors(analysis, analysis.spectra.field(channel))
        distances = analysis.histogram.distances(channel)
        rows += [
            (f"{name}: VRMSE", f"{vrmse.mean:.4f} +- {vrmse.std:.4f} from sample to sample"),
            (
                "  spectral error",
                ", ".join(f"{band} {error:.3g}" for band, error in bands.items() if error is not None),
            ),
            (
                "  distribution",
                f"JS {distances.js_divergence:.3g} nats, TV {distances.total_variation:.3g}, "
                f"W1 {distances.wasserstein1:.3g}",
            ),
        ]
    width = max(len(label) for label, _ in rows)
    return "\n".join([*(f"{label:<{width}}  {text}" for label, text in rows), *map(str, written.files)])
