"""Command-line arguments that the conversion scripts share, and their way of ending."""

import argparse
import logging
import sys
from collections.abc import Callable

from gust_torch.convert.conversion import Result
from gust_torch.convert.graphs import GraphResult
from gust_torch.convert.pdebench import Execution
from gust_torch.convert.plan import Options
from solvers.common.cli import run_command


def add_arguments(parser: argparse.ArgumentParser, *, splits: tuple[float, float, float] | None) -> None:
    """Add the options of every conversion of grids.

    Args:
        parser: Where to add them.
        splits: Default of --splits; None writes one file.
    """
    parser.add_argument(
        "--limit", type=int, metavar="N", help="source files to take, the first by name (default all)"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="trajectories to take from each file (default all)"
    )
    parser.add_argument(
        "--splits",
        type=float,
        nargs=3,
        default=splits,
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares by trajectory",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument("--compression", choices=("lz4", "gzip"), help="default: none, the fastest to read")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="convert files in parallel through Dask"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use this running Dask scheduler")
    parser.add_argument(
        "--verify", action="store_true", help="compare the outputs with the sources, bit for bit"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def options_from(args: argparse.Namespace) -> Options:
    """Return what to convert, from parsed arguments."""
    return Options(
        limit=args.limit,
        samples=args.samples,
        fractions=None if args.splits is None else tuple(args.splits),
        seed=args.seed,
        compression=args.compression,
    )


def execution_from(args: argparse.Namespace) -> Execution:
    """How to convert, from parsed arguments."""
    return Execution(
        overwrite=args.overwrite, verify=args.verify, workers=args.workers, scheduler=args.scheduler
    )


def run(command: Callable[[], Result | GraphResult]) -> int:
    """Run a conversion and reports: outputs on stdout, a refusal as one line on stderr.

    Returns:
        Exit code: 0, 1 for a refusal, 128 + signal where a signal stopped it.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    logging.getLogger("gust_torch").setLevel(logging.INFO)
    return run_command(lambda: _report(command()))


def _report(result: Result | GraphResult) -> int:
    """Print the outputs; returns the exit code."""
    if not result.exit_code:
        for split, path in result.outputs.items():
            print(f"{path}  {result.summary(split)}")
    return result.exit_code
