"""Converts one family of PDEBench files, meshes or particles to train, val and test files; see --help."""

import argparse
import sys
from pathlib import Path

from gust_torch.convert.cli import add_arguments, execution_from, options_from, run
from gust_torch.convert.conversion import Result
from gust_torch.convert.families import family_names
from gust_torch.convert.graph_cli import add_graph_arguments, graph_execution_from, refuse_graph_arguments
from gust_torch.convert.graph_tasks import GRAPH_TASKS
from gust_torch.convert.graphs import GraphResult, convert_graphs
from gust_torch.convert.pdebench import convert_family


def convert(args: argparse.Namespace) -> Result | GraphResult:
    """Grids become HDF5 files, meshes and particles Zarr stores."""
    options = options_from(args)
    if args.task in GRAPH_TASKS:
        execution = graph_execution_from(args)
        return convert_graphs(args.task, args.root, args.out, options, execution, pattern=args.pattern)
    refuse_graph_arguments(args)
    return convert_family(args.task, args.root, args.out, options, execution_from(args), pattern=args.pattern)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", help=", ".join([*family_names(), *GRAPH_TASKS]))
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the released 1D/ and 2D/")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for TASK_train.h5 (or .zarr), TASK_val, TASK_test"
    )
    parser.add_argument("--pattern", help="glob below --root that replaces the task's own")
    add_arguments(parser, splits=(0.8, 0.1, 0.1))
    add_graph_arguments(parser)
    args = parser.parse_args(arguments)
    return run(lambda: convert(args))


if __name__ == "__main__":
    sys.exit(main())
