"""Converts PDEBench files of one family to a single file, or with --splits to _train, _val and _test."""

import sys

from gust_torch.convert.commands import main_files as main

if __name__ == "__main__":
    sys.exit(main())
