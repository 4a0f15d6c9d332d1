"""Encodes converted data once and keeps the latents for training; see --help and docs/data_artifacts.md."""

import sys

from gust_torch.precompute.command import main

if __name__ == "__main__":
    sys.exit(main())
