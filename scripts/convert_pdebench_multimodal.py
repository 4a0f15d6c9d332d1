"""Converts one family of PDEBench files, meshes or particles to train, val and test files; see --help."""

import sys

from gust_torch.convert.commands import main

if __name__ == "__main__":
    sys.exit(main())
