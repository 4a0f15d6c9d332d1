"""Turn fields into discrete tokens with a trained VQ-VAE.

python -m gust_torch.tokenizer info --checkpoint model.ckpt --data_path data.h5
python -m gust_torch.tokenizer save --checkpoint model.ckpt --data_path data.h5 --output tokens.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.arguments import add_data_arguments, data_selection
from gust_torch.tokenizer.options import Compute
from solvers.common.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line and exit code 1."""
    arguments = build_parser().parse_args(argv)
    command = save if arguments.command == "save" else info
    return run_command(lambda: command(arguments), stopped="stopped; nothing was written")


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
    add_data_arguments(common)
    default = Compute()
    add = common.add_argument
    add("--fit_from", metavar="TOKENS.npz", help="use this file's vocabulary; unseen codes take a neighbor")
    for name, kind, text in (
        ("batch_size", int, "samples in a batch, for each device"),
        ("num_workers", int, "reading processes for each device"),
        ("devices", str, "number of devices, or a list such as 0,2"),
        ("accelerator", str, "cpu, gpu, mps, ..."),
        ("strategy", str, "Lightning strategy such as ddp"),
    ):
        add(f"--{name}", type=kind, default=getattr(default, name), help=f"{text} (default %(default)s)")
    return common


def save(arguments: argparse.Namespace) -> int:
    """Run `save`."""
    # Here and in info: torch and Lightning take seconds to import, which --help need not wait for.
    from gust_torch.tokenizer.pipeline import save_tokens
    from gust_torch.tokenizer.report import describe_saved

    silence_lightning()
    saved = save_tokens(
        arguments.checkpoint,
        data_selection(arguments),
        arguments.output,
        fit_from=arguments.fit_from,
        compute=compute_options(arguments),
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
    found = token_info(
        arguments.checkpoint,
        data_selection(arguments),
        fit_from=arguments.fit_from,
        compute=compute_options(arguments),
        check_samples=arguments.check_samples,
    )
    if found is None:
        return 0
    print(describe_info(found))
    if found.round_trip.exact:
        return 0
    print("error: decode(encode(x)) differs from reconstruct(x)", file=sys.stderr)
    return 1


def compute_options(arguments: argparse.Namespace) -> Compute:
    """Group the arguments that say how to compute."""
    return Compute(
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        devices=arguments.devices,
        accelerator=arguments.accelerator,
        strategy=arguments.strategy,
    )


if __name__ == "__main__":
    sys.exit(main())
