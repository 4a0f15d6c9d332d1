"""The training command on two processes."""

import subprocess
import sys
from pathlib import Path

import torch

from gust_torch.checkpoint import load_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


def test_two_cpu_processes_train_through_both_phases(turbulence_file, tiny_flags, tmp_path):
    flags = tiny_flags(turbulence_file, tmp_path)
    flags[flags.index("--trainer.devices") + 1] = "2"
    flags += ["--trainer.strategy", "ddp", "--trainer.max_epochs", "6", "--model.replace_every", "3"]
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "fit", *flags], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6 * 2  # 34 frames on two processes, batches of 6
    model = load_model(tmp_path / "checkpoints" / "last.ckpt")
    assert model.quantizer.initialized
    # 6 frames from each of two processes: the moving counts tend to those of the joint batch.
    counts = model.quantizer.ema.counts.split(model.vocab_sizes)[0]
    assert 11 < counts.sum() < 13
