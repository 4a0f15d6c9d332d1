"""Puts packaged datasets of the registry into a folder; see --help."""

import sys

from gust_torch.artifacts.fetch import main

if __name__ == "__main__":
    sys.exit(main())
