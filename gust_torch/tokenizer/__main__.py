"""Turn fields into discrete tokens with a trained VQ-VAE.

python -m gust_torch.tokenizer info --checkpoint model.ckpt --data_path data.h5
python -m gust_torch.tokenizer save --checkpoint model.ckpt --data_path data.h5 --output tokens.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gust_torch.tokenizer.terminal import one_line, silence_lightning

if TYPE_CHECKING:
    from gust_torch.tokenizer.encode import Compute, DataSelection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line and exit code 1."""
    arguments = build_parser().parse_args(argv)
    try:
        return save(arguments) if arguments.command == "save" else info(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of both commands."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m gust_torch.tokenizer", description=__doc__, formatter_class=formatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = common_arguments()
    info_parser = commands.add_parser(
        "info", parents=[common], help="code usage, bits per pixel and round trip; writes nothing"
    )
    info_parser.add_argument(
        "--check_samples", type=int, default=256, help="evenly spaced samples to decode again (default 256)"
    )
    save_parser = commands.add_parser("save", parents=[common], help="encode and write a token file")
    save_parser.add_argument("--output", required=True, metavar="TOKENS.npz", help="file to write")
    save_parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    return parser


def common_arguments() -> argparse.ArgumentParser:
    """Build the arguments that both commands take."""
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--checkpoint", required=True, metavar="MODEL.ckpt", help="checkpoint of scripts/train.py")
    add(
        "--data_path",
        required=True,
        nargs="+",
        metavar="DATA.h5",
        help="files in the common format, or a glob",
    )
    add("--fields", nargs="+", help="field names (default: those of the checkpoint)")
    add("--sample_start", type=int, default=0, help="first sample (default 0)")
    add("--sample_stop", type=int, help="one past the last sample (default: the end)")
    add("--fit_from", metavar="TOKENS.npz", help="use this file's vocabulary; unseen codes take a neighbour")
    add("--batch_size", type=int, default=32, help="samples in a batch, for each device (default 32)")
    add("--num_workers", type=int, default=0, help="reading processes for each device (default 0)")
    add("--devices", default="auto", help="number of devices, or a list such as 0,2 (default auto)")
    add("--accelerator", default="auto", help="cpu, gpu, mps, ... (default auto)")
    add("--strategy", default="auto", help="Lightning strategy such as ddp (default auto)")
    return common


def save(arguments: argparse.Namespace) -> int:
    """Run `save`."""
    # Here and in info: torch and Lightning take seconds to import, which --help need not wait for.
    from gust_torch.tokenizer.pipeline import save_tokens
    from gust_torch.tokenizer.report import describe_saved

    silence_lightning()
    selection, compute = parse_common(arguments)
    saved = save_tokens(
        arguments.checkpoint,
        selection,
        arguments.output,
        fit_from=arguments.fit_from,
        compute=compute,
        overwrite=arguments.overwrite,
    )
    if saved is not None:
        print(describe_saved(saved, arguments.output))
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Run `info`; exit code 1 when tokens do not decode exactly."""
    from gust_torch.tokenizer.info import token_info
    from gust_torch.tokenizer.report import describe_info

    silence_lightning()
    selection, compute = parse_common(arguments)
    found = token_info(
        arguments.checkpoint,
        selection,
        fit_from=arguments.fit_from,
        compute=compute,
        check_samples=arguments.check_samples,
    )
    if found is None:
        return 0
    print(describe_info(found))
    if found.round_trip.exact:
        return 0
    print("error: decode(encode(x)) differs from reconstruct(x)", file=sys.stderr)
    return 1


def parse_common(arguments: argparse.Namespace) -> tuple[DataSelection, Compute]:
    """Group the common arguments."""
    from gust_torch.tokenizer.encode import Compute, DataSelection

    # "[buoyancy,vorticity]", as scripts/train.py takes it, and "buoyancy vorticity" mean the same.
    fields = arguments.fields and " ".join(arguments.fields).strip("[]").replace(",", " ").split()
    selection = DataSelection(
        arguments.data_path,
        fields=fields,
        sample_start=arguments.sample_start,
        sample_stop=arguments.sample_stop,
    )
    compute = Compute(
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        devices=arguments.devices,
        accelerator=arguments.accelerator,
        strategy=arguments.strategy,
    )
    return selection, compute


if __name__ == "__main__":
    sys.exit(main())
