"""Command line of the evaluation of latent operators; torch is imported when it starts to work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.evaluation.schedule import Settings
from gust_torch.terminal import silence_lightning
from solvers.common.cli import parse, run_command


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """What to evaluate on what.

    Attributes:
        checkpoint: latent operator of scripts/train.py
        data_path: grid file (.h5) or store of particles (.zarr)
        output_dir: for figures and numbers; created
        accelerator: auto, cpu, gpu, cuda or mps
    """

    checkpoint: str
    data_path: str
    output_dir: Path
    accelerator: Annotated[str, tyro.conf.arg(aliases=["--device"])] = "auto"


def main(argv: Sequence[str] | None = None, prog: str = "python scripts/evaluate.py") -> int:
    """Roll a trained operator out on test data; errors become one line and exit code 1."""

    def run() -> None:
        description = "Roll a trained latent operator out on test data: errors over lead time, and figures."
        options = parse(Options, argv, prog=prog, description=description, underscores=True)
        from gust_torch.evaluation.evaluate import evaluate_checkpoint

        silence_lightning()
        print(evaluate_checkpoint(options))

    return run_command(run, stopped="stopped; start the same command again")
