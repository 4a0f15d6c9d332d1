"""Command line of the evaluation of latent operators; torch is imported when it starts to work."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from gust_torch.evaluation.schedule import Settings
from gust_torch.terminal import silence_lightning
from solvers.common.cli import parse, run_command


@dataclass(frozen=True)
class Options(Settings):
    """What to evaluate on what.

    Attributes:
        checkpoint: latent operator of scripts/train.py
        data_path: grid file (.h5) or store of particles (.zarr)
        output_dir: for figures and numbers; created
        accelerator: auto, cpu, gpu, cuda or mps
    """

    checkpoint: str = field(kw_only=True)
    data_path: str = field(kw_only=True)
    output_dir: Path = field(kw_only=True)
    accelerator: Annotated[str, tyro.conf.arg(aliases=["--device"])] = field(default="auto", kw_only=True)


def main(argv: Sequence[str] | None = None, prog: str = "python scripts/evaluate.py") -> int:
    """Roll a trained operator out on test data; errors become one line and exit code 1."""
    return run_command(lambda: run(argv, prog), stopped="stopped; start the same command again")


def run(argv: Sequence[str] | None, prog: str) -> None:
    """Evaluate, write everything, print the table."""
    options = parse(
        Options,
        argv,
        prog=prog,
        description="Roll a trained latent operator out on test data: errors over lead time, and figures.",
        underscores=True,
    )
    from gust_torch.evaluation.evaluate import evaluate_checkpoint

    silence_lightning()
    settings = Settings(**{setting.name: getattr(options, setting.name) for setting in fields(Settings)})
    print(
        evaluate_checkpoint(
            options.checkpoint,
            options.data_path,
            options.output_dir,
            settings,
            accelerator=options.accelerator,
        )
    )
