"""Train a VQ-VAE, or any task that a configuration names.

    python scripts/train.py fit --config configs/vqvae/turbulence.yaml --data.data_path FILE
    python scripts/train.py fit --config configs/autoencoder/burgers1d.yaml
    python scripts/train.py fit --config configs/latent/burgers1d.yaml

`python scripts/train.py fit --help` lists every flag; `fit --model gust_torch.LatentAutoencoderTask
--print_config` lists the settings of another task.
"""

import sys

from gust_torch.tasks.cli import main

if __name__ == "__main__":
    sys.exit(main())
