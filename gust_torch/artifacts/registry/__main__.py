"""`python -m gust_torch.artifacts.registry`."""

import sys

from gust_torch.artifacts.registry.cli import main

if __name__ == "__main__":
    sys.exit(main())
