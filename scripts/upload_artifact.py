"""Uploads a file as an artifact, to W&B or to any place that fsspec reaches; see --help."""

import sys

from gust_torch.artifacts.upload import main

if __name__ == "__main__":
    sys.exit(main())
