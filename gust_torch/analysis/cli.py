"""Command line of the reconstruction analysis."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.arguments import add_data_arguments, data_selection
from gust_torch.tokenizer.options import Compute
from solvers.common.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; errors become one line and exit code 1."""
    arguments = build_parser().parse_args(argv)
    return run_command(lambda: run(arguments), stopped="stopped; nothing was written")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m gust_torch.analyze_reconstruction``."""
    parser = argparse.ArgumentParser(
        prog="python -m gust_torch.analyze_reconstruction",
        description="Spectra, histograms and errors of what the tokens of a trained VQ-VAE decode to.",
    )
    add_data_arguments(parser)
    add = parser.add_argument
    add("--output_dir", required=True, type=Path, metavar="FOLDER", help="for figures and numbers; created")
    for flags, kind, default, text in (
        (["--batch_size"], int, Compute.batch_size, "samples in a batch"),
        (["--num_workers"], int, Compute.num_workers, "reading processes"),
        (["--accelerator", "--device"], str, Compute.accelerator, "auto, cpu, gpu, cuda or mps"),
    ):
        add(*flags, type=kind, default=default, help=f"{text} (default %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Analyze, write everything, print a short summary."""
    # Here, not above: torch, Lightning and matplotlib take seconds to import, which --help need not wait for.
    from gust_torch.analysis.command import analyze_checkpoint, describe

    silence_lightning()
    written = analyze_checkpoint(
        arguments.checkpoint,
        data_selection(arguments),
        arguments.output_dir,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        accelerator=arguments.accelerator,
    )
    print(describe(written))
