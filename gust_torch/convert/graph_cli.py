"""Command-line arguments for meshes and particles."""

import argparse

from gust_torch.convert.graphs import GraphExecution


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option that only meshes and particles have."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without bad .npz shards and list them at the end"
    )


def graph_execution_from(args: argparse.Namespace) -> GraphExecution:
    """How to convert shards, from parsed arguments.

    Raises:
        ValueError: An option that only grids have.
    """
    if args.workers or args.scheduler:
        raise ValueError(f"--workers and --scheduler are for grids; leave them out for {args.task}")
    if args.samples is not None:
        raise ValueError(f"--samples is for grids, a shard is one sample; give --limit for {args.task}")
    return GraphExecution(
        overwrite=args.overwrite,
        verify=args.verify,
        skip_bad=args.skip_bad,
    )


def refuse_graph_arguments(args: argparse.Namespace) -> None:
    """Refuses options that would do nothing for grids.

    Raises:
        ValueError: One was given.
    """
    if args.skip_bad:
        raise ValueError(f"--skip-bad is for meshes and particles; leave it out for {args.task}")
