"""Command line of the reconstruction analysis; torch is imported when it starts to work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.options import DataOptions
from solvers.common.cli import parse, run_command

PROG = "python -m gust_torch.analyze_reconstruction"


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(DataOptions):
    """What to analyze, and where the results go.

    Attributes:
        output_dir: for figures and numbers; created
        accelerator: auto, cpu, gpu, cuda or mps
    """

    output_dir: Path
    accelerator: Annotated[str, tyro.conf.arg(aliases=["--device"])] = "auto"


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Analyze, write everything, print a summary; errors become one line and exit code 1."""

    def run() -> None:
        description = "Spectra, histograms and errors of what the tokens of a trained VQ-VAE decode to."
        options = parse(AnalyzeOptions, argv, prog=prog, description=description, underscores=True)
        # Not at the top: torch, Lightning and matplotlib take seconds, which --help need not wait for.
        from gust_torch.analysis.analyze import analyze_checkpoint

        silence_lightning()
        print(analyze_checkpoint(options))

    return run_command(run, stopped="stopped; nothing was written")
