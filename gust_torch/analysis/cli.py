"""Command line of the reconstruction analysis."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gust_torch.tokenizer.terminal import one_line, silence_lightning


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; errors become one line and exit code 1."""
    arguments = build_parser().parse_args(argv)
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m gust_torch.analyze_reconstruction``."""
    parser = argparse.ArgumentParser(
        prog="python -m gust_torch.analyze_reconstruction",
        description="Spectra, histograms and errors of what the tokens of a trained VQ-VAE decode to.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="MODEL.ckpt", help="checkpoint of scripts/train.py")
    add("--data_path", required=True, nargs="+", metavar="DATA.h5", help="common-format files, or a glob")
    add("--output_dir", required=True, type=Path, metavar="FOLDER", help="for figures and numbers; created")
    add("--fields", nargs="+", help="field names (default: those of the checkpoint)")
    add("--sample_start", type=int, default=0, help="first sample (default 0)")
    add("--sample_stop", type=int, help="one past the last sample (default: the end)")
    add("--batch_size", type=int, default=32, help="samples in a batch (default 32)")
    add("--num_workers", type=int, default=0, help="reading processes (default 0)")
    add("--accelerator", "--device", default="auto", help="auto, cpu, gpu, cuda or mps (default auto)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Analyse, write everything, print a short summary."""
    # Here, not above: torch, Lightning and matplotlib take seconds to import, which --help need not wait for.
    from gust_torch.analysis.command import analyze_checkpoint, describe
    from gust_torch.tokenizer.encode import DataSelection

    silence_lightning()
    # "[buoyancy,vorticity]", as scripts/train.py takes it, and "buoyancy vorticity" mean the same.
    fields = arguments.fields and " ".join(arguments.fields).strip("[]").replace(",", " ").split()
    selection = DataSelection(
        arguments.data_path,
        fields=fields,
        sample_start=arguments.sample_start,
        sample_stop=arguments.sample_stop,
    )
    written = analyze_checkpoint(
        arguments.checkpoint,
        selection,
        arguments.output_dir,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        accelerator=arguments.accelerator,
    )
    print(describe(written))
