"""Puts packaged datasets of the registry into a folder; a second run does nothing."""

import argparse
import logging
import sys
from pathlib import Path

from gust_torch.artifacts.fetching.fetch_datasets import (
    DEFAULT_ROOT,
    DEFAULT_WORKERS,
    Source,
    fetch,
)
from gust_torch.artifacts.registry.file import DEFAULT_REGISTRY
from gust_torch.artifacts.stores.opening import DEFAULT_CACHE
from solvers.common.cli import run_command


def run(args: argparse.Namespace) -> None:
    """Fetch, and prints a line for each dataset."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    source = Source(args.cache, args.registry, args.entity, args.project, args.offline, args.workers)
    fetch(args.names, args.root, source, overwrite=args.overwrite, report=lambda done: print(done.line()))


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and fetches."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME", help="datasets of the registry")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="where their files go (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, help="where downloaded tarballs are kept (%(default)s)"
    )
    parser.add_argument(
        "--registry", type=Path, default=DEFAULT_REGISTRY, help="says where they lie (%(default)s)"
    )
    parser.add_argument("--entity", help="W&B entity of artifacts that name none (default WANDB_ENTITY)")
    parser.add_argument("--project", help="W&B project of artifacts that name none (default WANDB_PROJECT)")
    parser.add_argument("--offline", action="store_true", help="use the cache only, never the network")
    parser.add_argument(
        "--workers",
        type=int,
        default=DEFAULT_WORKERS,
        metavar="N",
        help="pieces to download at the same time (%(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in --root that were changed or not fetched"
    )
    args = parser.parse_args(arguments)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
