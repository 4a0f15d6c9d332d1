"""Train a VQ-VAE.

    python scripts/train.py fit --config configs/vqvae/turbulence.yaml --data.data_path FILE

`python scripts/train.py fit --help` lists every flag.
"""

from gust_torch.tasks.cli import main

if __name__ == "__main__":
    main()
