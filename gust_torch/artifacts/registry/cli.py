"""Command line of the registry: `python -m gust_torch.artifacts.registry check [FILE]` and `tasks NAME`."""

import argparse
import sys
from pathlib import Path

from gust_torch.artifacts.registry.file import DEFAULT_REGISTRY, check_registry, load_registry
from solvers.common.cli import run_command


def check(path: Path) -> int:
    """Print every problem of a registry on standard error, or on standard output that there is none.

    Returns:
        Exit code.
    """
    problems = check_registry(path)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    count = len(load_registry(path).names)
    print(f"{path}: {count} dataset{'' if count == 1 else 's'}, no problems")
    return 0


def tasks(names: list[str], path: Path) -> None:
    """Print task, kind and checksum of some datasets, a line each, for scripts to read."""
    registry = load_registry(path)
    for entry in [registry[name] for name in names]:
        print(entry.task, entry.kind, entry.sha256)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and runs one command."""
    parser = argparse.ArgumentParser(
        prog="python -m gust_torch.artifacts.registry", description="The registry of packaged data sets."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    checking = commands.add_parser("check", help="list everything that is wrong with a registry")
    checking.add_argument("file", nargs="?", type=Path, default=DEFAULT_REGISTRY, help="default: %(default)s")
    listing = commands.add_parser("tasks", help="print task, kind and checksum of datasets, a line each")
    listing.add_argument("names", nargs="+", metavar="NAME", help="data sets of the registry")
    listing.add_argument("--registry", type=Path, default=DEFAULT_REGISTRY, help="default: %(default)s")
    args = parser.parse_args(arguments)
    if args.command == "tasks":
        return run_command(lambda: tasks(args.names, args.registry))
    return run_command(lambda: check(args.file))
