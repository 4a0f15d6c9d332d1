"""Converts PDEBench files of one family to a single file, or with --splits to _train, _val and _test."""

import argparse
import sys
from pathlib import Path

from gust_torch.convert.cli import add_arguments, execution_from, options_from, run
from gust_torch.convert.families import family_names
from gust_torch.convert.pdebench import convert_pattern


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pattern", required=True, help="glob of the source files, quoted")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="output file")
    parser.add_argument("--family", help=f"for files not named as released: {', '.join(family_names())}")
    add_arguments(parser, splits=None)
    args = parser.parse_args(arguments)
    return run(
        lambda: convert_pattern(
            args.pattern, args.out, options_from(args), execution_from(args), family=args.family
        )
    )


if __name__ == "__main__":
    sys.exit(main())
