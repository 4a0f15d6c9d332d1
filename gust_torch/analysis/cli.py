"""Command line of the reconstruction analysis."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gust_torch.analysis.output import write_analysis
from gust_torch.analysis.passes import Analysis, analyze
from gust_torch.analysis.report import summarize
from gust_torch.data import HDF5Dataset
from gust_torch.models import VQVAE2d
from gust_torch.tokenizer import VQVAETokenizer
from solvers.common.progress import Progress
from solvers.common.provenance import provenance

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def parser() -> argparse.ArgumentParser:
    """Flags of ``python -m gust_torch.analyze_reconstruction``."""
    result = argparse.ArgumentParser(
        prog="python -m gust_torch.analyze_reconstruction",
        description="Spectra, histograms and errors of what the tokens of a trained VQ-VAE decode to.",
    )
    result.add_argument("--checkpoint", required=True, help="checkpoint of scripts/train.py")
    result.add_argument(
        "--data_path", required=True, nargs="+", help="HDF5 file in the common format, a glob, or several"
    )
    result.add_argument("--output_dir", required=True, type=Path, help="for figures and numbers; created")
    result.add_argument("--sample_start", type=int, default=0, help="first sample (default: 0)")
    result.add_argument("--sample_stop", type=int, help="end of the samples, exclusive (default: all)")
    result.add_argument(
        "--fields",
        nargs="+",
        help="fields to read, in the checkpoint's order (default: the checkpoint's names)",
    )
    result.add_argument("--batch_size", type=int, default=32, help="samples at once (default: 32)")
    result.add_argument("--num_workers", type=int, default=0, help="reader processes (default: 0)")
    result.add_argument(
        "--accelerator", "--device", choices=ACCELERATORS, default="auto", help="where to run (default: auto)"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; errors a user can mend are one line on stderr.

    Returns:
        Exit code: 0, or 1 after an error.
    """
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Analyse, write everything, and print a short summary with the files' names."""
    device = choose_device(arguments.accelerator)
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    model = VQVAETokenizer.from_checkpoint(arguments.checkpoint).model
    dataset = HDF5Dataset(
        arguments.data_path,
        fields=arguments.fields or list(model.spec.names),
        sample_start=arguments.sample_start,
        sample_stop=arguments.sample_stop,
    )
    # Before the pass, not after it: a folder that cannot be made would waste it.
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with Progress(len(dataset), unit="sample", description="analysis") as progress:
        analysis = analyze(
            model,
            dataset,
            batch_size=arguments.batch_size,
            num_workers=arguments.num_workers,
            device=device,
            on_batch=progress.update,
        )
    files = write_analysis(analysis, _metrics(arguments, analysis, model, device), arguments.output_dir)
    print(_summary(analysis, model))
    for path in files:
        print(path)


def choose_device(accelerator: str) -> torch.device:
    """The device of ``--accelerator``.

    Raises:
        ValueError: This machine has no such device.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    name = {"gpu": "cuda"}.get(accelerator, accelerator)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise ValueError(f"--accelerator {accelerator}: no such device here; use --accelerator cpu")
    return torch.device(name)


def _metrics(
    arguments: argparse.Namespace, analysis: Analysis, model: VQVAE2d, device: torch.device
) -> dict[str, object]:
    """Content of ``metrics.json``: where it came from, then every number."""
    return {
        "checkpoint": str(arguments.checkpoint),
        "data_path": [str(path) for path in arguments.data_path],
        "sample_start": arguments.sample_start,
        "sample_stop": arguments.sample_start + analysis.num_samples,
        "batch_size": arguments.batch_size,
        "device": device.type,
        "torch_version": str(torch.__version__),
        **provenance(),
        **summarize(analysis, model),
        "architecture": model.architecture(),
    }


def _summary(analysis: Analysis, model: VQVAE2d) -> str:
    """One line a field, for people."""
    lines = [f"{analysis.num_samples} samples"]
    for channel, name in enumerate(analysis.spec.names):
        error = analysis.errors.summary("vrmse", channel)
        distances = analysis.histogram.distances(channel)
        lines.append(
            f"{name}: VRMSE {error.mean:.4f} +- {error.std:.4f}, MSE "
            f"{analysis.errors.summary('mse', channel).mean:.4g}, JS {distances.js_divergence:.4g} nats, "
            f"TV {distances.total_variation:.4g}, W1 {distances.wasserstein1:.4g}"
        )
    return "\n".join(lines)
