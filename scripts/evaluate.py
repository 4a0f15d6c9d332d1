"""Roll a trained latent operator out on test data and report its errors over lead time.

    python scripts/evaluate.py --checkpoint runs/latent/burgers1d/checkpoints/best.ckpt \\
        --data_path data/pdebench/burgers1d_test.h5 --output_dir runs/latent/burgers1d/evaluation
"""

import sys

from gust_torch.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main())
