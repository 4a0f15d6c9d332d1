"""Command line of packing: files of a task -> tarball, manifest and the registry's entry."""

import argparse
import logging
import sys
from pathlib import Path

from gust_torch.artifacts.metadata import parse_metadata
from gust_torch.artifacts.reference import reference_problem
from gust_torch.artifacts.registry.checks import SPLITS
from gust_torch.artifacts.registry.file import DEFAULT_REGISTRY
from gust_torch.artifacts.registry.write import register
from solvers.common.cli import run_command

logger = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Packs train, val and test files of a task into OUT/NAME.tar.gz, describes it in "
        "OUT/NAME.manifest.json, and prints the registry's entry on standard output.",
    )
    parser.add_argument("name", help="of the data set, such as burgers1d_subset_v1; begins with the task")
    parser.add_argument(
        "--root", type=Path, default=Path("data/pdebench"), help="where the files are (%(default)s)"
    )
    parser.add_argument("--task", help="default: the longest with files in ROOT that NAME begins with")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, help="default: those that are there")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts"), help="where the tarball goes (%(default)s)"
    )
    parser.add_argument(
        "--artifact", metavar="REFERENCE", help="where it is or will be uploaded to, for the entry"
    )
    parser.add_argument("--register", action="store_true", help="write the entry into the registry as well")
    parser.add_argument("--registry", type=Path, default=DEFAULT_REGISTRY, help="default: %(default)s")
    parser.add_argument(
        "--metadata", metavar="JSON", help="a JSON object, or @FILE with one, instead of what the files say"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that compress (default: one a core)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace another package or entry of this name"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and packs."""
    args = make_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)  # other packages: warnings only
    logging.getLogger("gust_torch").setLevel(logging.INFO)
    return run_command(lambda: pack(args), stopped="stopped; nothing was written")


def pack(args: argparse.Namespace) -> None:
    """Packs, prints the entry, and registers it where asked.

    Raises:
        ValueError: As `package` and `register`; a malformed reference or metadata.
    """
    from gust_torch.artifacts.packaging.pack import package  # h5py takes its time; --help should not

    metadata = None if args.metadata is None else parse_metadata(args.metadata)
    if args.artifact is None and args.register:
        raise ValueError(
            "--register needs --artifact, the reference that scripts/upload_artifact.py prints; without "
            "--register the entry is printed with a placeholder"
        )
    if args.artifact is not None and (problem := reference_problem(args.artifact)) is not None:
        raise ValueError(f"--artifact {problem}")
    result = package(
        args.name,
        args.root,
        out=args.out,
        task=args.task,
        splits=args.splits,
        metadata=metadata,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    print(result.entry_yaml(args.artifact), end="")
    if args.register:
        changed = register(args.registry, result.entry(args.artifact), overwrite=args.overwrite)
        logger.info("%s: %s", args.registry, "entry written" if changed else "has this entry already")
