"""Converts one family of PDEBench files to train, val and test files; --help lists the families."""

import argparse
import sys
from pathlib import Path

from gust_torch.convert import convert_family, family_names
from gust_torch.convert.cli import add_arguments, execution_from, options_from, run


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", help=", ".join(family_names()))
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the released 1D/ and 2D/")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for TASK_train.h5, TASK_val.h5, TASK_test.h5"
    )
    parser.add_argument("--pattern", help="glob below --root that replaces the task's own")
    add_arguments(parser, splits=(0.8, 0.1, 0.1))
    args = parser.parse_args(arguments)
    return run(
        lambda: convert_family(
            args.task, args.root, args.out, options_from(args), execution_from(args), pattern=args.pattern
        )
    )


if __name__ == "__main__":
    sys.exit(main())
