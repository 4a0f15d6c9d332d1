"""From a checkpoint and a data file to a folder of figures and numbers."""

from time import perf_counter
from typing import Any

import torch

from gust_torch.analysis.command import AnalyzeOptions
from gust_torch.analysis.figures import analysis_figures
from gust_torch.analysis.passes import analyze
from gust_torch.analysis.report import curves, describe, summarize
from gust_torch.figures import write_results
from gust_torch.tokenizer.pipeline import open_data
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from solvers.common.progress import Progress
from solvers.common.provenance import provenance
from solvers.common.urls import redact


def analyze_checkpoint(options: AnalyzeOptions) -> str:
    """Score a checkpoint's tokens on some data, write figures and numbers, and return a text for people.

    Raises:
        ValueError: A file that can't be used, data that the model does not take, no such device.
    """
    device = choose_device(options.accelerator)
    model = VQVAETokenizer.from_checkpoint(options.checkpoint, search=options.search).model
    dataset, other_scale = open_data(model, options)
    # Before the pass, not after it: a folder that cannot be made would waste it.
    options.output_dir.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    with Progress(len(dataset), unit="sample", description="analysis") as progress:
        size, workers = options.batch_size, options.num_workers
        analysis = analyze(model, dataset, size, workers, device, on_batch=progress.update)
    seconds = perf_counter() - start
    metrics: dict[str, Any] = {
        "checkpoint": redact(options.checkpoint),
        "data_path": [redact(path) for path in options.data_path],
        "sample_start": options.sample_start,
        "sample_stop": options.sample_start + analysis.num_samples,
        "search": options.search,
        "batch_size": options.batch_size,
        "device": device.type,
        "torch_version": str(torch.__version__),
        **provenance(),
        **summarize(analysis),
        "fields_of_other_scale": other_scale,
        "architecture": model.architecture(),
    }
    figures = analysis_figures(analysis, metrics)
    files = write_results(options.output_dir, figures, metrics, curves(analysis))
    return "\n".join([*describe(analysis.spec, metrics, seconds), *map(str, files)])


def choose_device(accelerator: str) -> torch.device:
    """Return the device of ``--accelerator``.

    Raises:
        ValueError: The name is unknown, or this machine has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = {"auto": True, "cpu": True, "gpu": cuda, "cuda": cuda, "mps": mps}
    if accelerator not in available:
        raise ValueError(f"--accelerator {accelerator} is not one of {', '.join(available)}")
    if not available[accelerator]:
        raise ValueError(f"--accelerator {accelerator}: no such device here; use --accelerator cpu")
    return torch.device({"auto": "cuda" if cuda else "cpu", "gpu": "cuda"}.get(accelerator, accelerator))
