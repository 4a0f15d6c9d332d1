"""The training command on two processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gust_torch.checkpoint import load_model
from gust_torch.tasks.cli import main

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
LAST = Path("checkpoints", "last.ckpt")


FRAMES = ["--data.val_fraction", "0.325", "--data.gap", "0"]  # 27 train, 13 validate


@pytest.fixture(scope="module")
def run_on_two(turbulence_file, tiny_flags):
    """`run_on_two(root, *flags)`: 6 epochs of two steps on two processes."""

    def run(root, *more):
        flags = [*tiny_flags(turbulence_file, root), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
        flags += ["--model.autoencoder_steps", "1", "--model.replace_every", "3", "--best.save_top_k", "-1"]
        flags += ["--trainer.max_epochs", "6", "--trainer.max_steps", "12", *FRAMES, *more]
        command = [sys.executable, str(SCRIPT), "fit", *flags]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stderr

    return run


@pytest.fixture(scope="module")
def trained(run_on_two, tmp_path_factory):
    root = tmp_path_factory.mktemp("two_processes")
    run_on_two(root)
    return root


def test_two_cpu_processes_train_through_both_phases(trained, turbulence_file, tiny_flags, logged, tmp_path):
    checkpoint = torch.load(trained / LAST, weights_only=True)
    assert checkpoint["global_step"] == 6 * 2  # batches of 6 on two processes
    model = load_model(trained / LAST)
    assert model.quantizer.initialized
    # 6 frames from each of two processes: the moving counts tend to those of the joint batch.
    counts = model.quantizer.ema.counts.split(model.vocab_sizes)[0]
    assert 11 < counts.sum() < 13
    # 13 frames on two processes: the sample that fills up is not counted twice.
    one = [*tiny_flags(turbulence_file, tmp_path), *FRAMES, "--ckpt_path", str(trained / LAST)]
    main(["validate", *one])
    two, alone = logged(trained), logged(tmp_path)
    assert {name for name in two if name.startswith("val/")} <= alone.keys()
    for name in filter(lambda name: name.startswith("val/"), alone):
        assert two[name][-1] == pytest.approx(alone[name][-1], rel=1e-5), name


def test_two_processes_continue_bit_for_bit(trained, run_on_two, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(trained, root)
    (behind_an_epoch,) = (root / "checkpoints").glob("best-epoch0003-step0000008-*")
    shutil.copy(behind_an_epoch, root / LAST)
    run_on_two(root, "--ckpt_path", "last")
    expected, got = (torch.load(folder / LAST, weights_only=True) for folder in (trained, root))
    assert (expected["global_step"], expected["epoch"]) == (got["global_step"], got["epoch"])
    tensors = {n: v for n, v in expected["state_dict"].items() if isinstance(v, torch.Tensor)}
    for name, value in tensors.items():  # frames that were not yet kept are NaN
        assert torch.equal(value.nan_to_num(7.0), got["state_dict"][name].nan_to_num(7.0)), name
    for number, state in expected["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, got["optimizer_states"][0]["state"][number][name]), (number, name)


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
