"""Packs the files of a task into a tarball with a manifest and a registry entry; see --help."""

import sys

from gust_torch.artifacts.package import main

if __name__ == "__main__":
    sys.exit(main())
