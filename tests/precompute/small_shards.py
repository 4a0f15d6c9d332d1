"""The command with shards of a few samples, so that tiny data make many; its processes run it too."""

import os
import sys

from gust_torch.latents import plan
from gust_torch.precompute.cli import main

if __name__ == "__main__":
    plan.SHARD_BYTES = int(os.environ["SHARD_BYTES"])
    sys.exit(main())
