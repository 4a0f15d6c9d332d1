"""The training command on two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gust_torch.checkpoint import load_model
from gust_torch.tasks.cli import main

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
LAST = Path("checkpoints", "last.ckpt")


def test_two_cpu_processes_train_through_both_phases(turbulence_file, tiny_flags, logged, tmp_path):
    flags = tiny_flags(turbulence_file, tmp_path)
    flags[flags.index("--trainer.devices") + 1] = "2"
    flags += ["--trainer.strategy", "ddp", "--trainer.max_epochs", "6", "--model.replace_every", "3"]
    frames = ["--data.val_fraction", "0.325", "--data.gap", "0"]  # 27 train, 13 validate
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "fit", *flags, *frames],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    checkpoint = torch.load(tmp_path / LAST, weights_only=True)
    assert checkpoint["global_step"] == 6 * 2  # batches of 6 on two processes
    model = load_model(tmp_path / LAST)
    assert model.quantizer.initialized
    # 6 frames from each of two processes: the moving counts tend to those of the joint batch.
    counts = model.quantizer.ema.counts.split(model.vocab_sizes)[0]
    assert 11 < counts.sum() < 13
    # 13 frames on two processes: the sample that fills up is not counted twice.
    one = [*tiny_flags(turbulence_file, tmp_path / "one"), *frames, "--ckpt_path", str(tmp_path / LAST)]
    main(["validate", *one])
    two, alone = logged(tmp_path), logged(tmp_path / "one")
    assert {name for name in two if name.startswith("val/")} <= alone.keys()
    for name in filter(lambda name: name.startswith("val/"), alone):
        assert two[name][-1] == pytest.approx(alone[name][-1], rel=1e-5), name


def test_sigterm_to_the_first_of_two_processes_ends_both(turbulence_file, tiny_flags, tmp_path):
    flags = tiny_flags(turbulence_file, tmp_path)
    flags[flags.index("--trainer.devices") + 1] = "2"
    flags += ["--trainer.strategy", "ddp", "--trainer.max_epochs", "5000"]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "fit", *flags],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (tmp_path / LAST).exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, error
    assert "stopped by SIGTERM at step" in error
    assert "--ckpt_path last continues" in error
