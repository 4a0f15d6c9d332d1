"""Command line of the evaluation of latent operators."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gust_torch.evaluation.schedule import Settings
from gust_torch.terminal import silence_lightning
from solvers.common.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; errors become one line and exit code 1."""
    arguments = build_parser().parse_args(argv)
    return run_command(lambda: run(arguments), stopped="stopped; start the same command again")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``scripts/evaluate.py``."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Roll a trained latent operator out on test data: errors over lead time, and figures.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="MODEL.ckpt", help="latent operator of scripts/train.py")
    add("--data_path", required=True, metavar="DATA", help="grid file (.h5) or store of particles (.zarr)")
    add("--output_dir", required=True, type=Path, metavar="FOLDER", help="for figures and numbers; created")
    for name, default, text in (
        (
            "horizon",
            Settings.horizon,
            "steps of a rollout (default: as many as the longest trajectory allows)",
        ),
        ("start", Settings.start, "frame of each trajectory to start from (default %(default)s)"),
        ("stride", Settings.stride, "frames in a step (default %(default)s)"),
        ("limit", Settings.limit, "the first so many trajectories (default: all)"),
        ("batch_size", Settings.batch_size, "trajectories at once (default %(default)s)"),
    ):
        add(f"--{name}", type=int, default=default, metavar="N", help=text)
    add("--accelerator", "--device", default="auto", help="auto, cpu, gpu, cuda or mps (default %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, write everything, print the table."""
    settings = Settings(
        horizon=arguments.horizon,
        start=arguments.start,
        stride=arguments.stride,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
    )
    # Here, not above: torch and matplotlib take seconds to import, which --help need not wait for.
    from gust_torch.evaluation.command import evaluate_checkpoint

    silence_lightning()
    written = evaluate_checkpoint(
        arguments.checkpoint,
        arguments.data_path,
        arguments.output_dir,
        settings,
        accelerator=arguments.accelerator,
    )
    print("\n".join([written.table, *written.notes, *map(str, written.files)]))
