"""Command line of the reconstruction analysis; torch is imported when it starts to work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.terminal import silence_lightning
from solvers.common.cli import parse, run_command

PROG = "python -m gust_torch.analyze_reconstruction"


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions:
    """What to analyze, and where the results go.

    Attributes:
        checkpoint: checkpoint of scripts/train.py
        data_path: files in the common format, or a glob
        output_dir: for figures and numbers; created
        fields: field names; by default those of the checkpoint
        sample_start: first sample
        sample_stop: one past the last sample; by default the end
        batch_size: samples in a batch
        num_workers: reading processes
        accelerator: auto, cpu, gpu, cuda or mps
    """

    checkpoint: str
    data_path: tuple[str, ...]
    output_dir: Path
    fields: tuple[str, ...] | None = None
    sample_start: int = 0
    sample_stop: int | None = None
    batch_size: int = 32
    num_workers: int = 0
    accelerator: Annotated[str, tyro.conf.arg(aliases=["--device"])] = "auto"

    def __post_init__(self) -> None:
        """Check the numbers, and take "[buoyancy,vorticity]" as scripts/train.py does."""
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"expected batch_size >= 1 and num_workers >= 0, got {self.batch_size} and {self.num_workers}"
            )
        if self.fields is not None:
            names = " ".join(self.fields).strip("[]").replace(",", " ").split()
            object.__setattr__(self, "fields", tuple(names))


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command; errors become one line and exit code 1."""
    return run_command(lambda: run(argv, prog), stopped="stopped; nothing was written")


def run(argv: Sequence[str] | None, prog: str) -> None:
    """Analyze, write everything, print a short summary."""
    options = parse(
        AnalyzeOptions,
        argv,
        prog=prog,
        description="Spectra, histograms and errors of what the tokens of a trained VQ-VAE decode to.",
        underscores=True,
    )
    # Here, not above: torch, Lightning and matplotlib take seconds to import, which --help need not wait for.
    from gust_torch.analysis.analyze import analyze_checkpoint

    silence_lightning()
    print(analyze_checkpoint(options))
