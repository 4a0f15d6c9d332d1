"""Every checkpoint of a run, continued: bit for bit what the run in one go gives."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback

from gust_torch.data.datamodule import FieldDataModule
from gust_torch.tasks.checkpoints import FileCheckpointIO
from gust_torch.tasks.cli import main
from gust_torch.tasks.signals import Signals
from gust_torch.tasks.training import TrainCLI
from gust_torch.tasks.vqvae import VQVAETask

pytestmark = pytest.mark.slow

LAST = Path("checkpoints", "last.ckpt")
EVERY_BATCH = ["--recent.train_time_interval", "0:00:00"]
QUANTIZED_SOON = ["--model.autoencoder_steps", "1", "--model.replace_every", "3"]
QUANTIZED_SOON += ["--model.augment_shifts", "true"]
CASES = {
    # 34 frames in batches of 16 (2 are left over, the third batch is dropped)
    "epochs": ["--data.batch_size", "16", *EVERY_BATCH],
    "steps that end with an epoch": ["--data.batch_size", "17", "--trainer.max_steps", "6"],
    "steps that end within an epoch, validation every second epoch": [
        *("--data.batch_size", "10", "--trainer.max_steps", "8", "--trainer.check_val_every_n_epoch", "2"),
    ],
    "no validation": ["--data.batch_size", "16", "--data.val_fraction", "0", "--trainer.max_steps", "6"],
    "accumulation, validation within epochs and within steps": [
        *("--data.batch_size", "11", "--trainer.accumulate_grad_batches", "2"),
        *("--trainer.val_check_interval", "1"),
    ],
}


@pytest.fixture
def kept(monkeypatch):
    """Keep a copy of a checkpoint of each place in the folder that is appended to what this returns."""
    folder: list[Path] = []
    seen: set[str] = set()
    save = FileCheckpointIO.save_checkpoint

    def save_and_keep(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        place = repr((checkpoint["global_step"], checkpoint["epoch"], checkpoint["loops"]))
        if folder and place not in seen:
            shutil.copy(path, folder[0] / f"{len(seen):03d}_{Path(path).name}")
            seen.add(place)

    monkeypatch.setattr(FileCheckpointIO, "save_checkpoint", save_and_keep)
    return folder


def tensors(root):
    """Return what training changes, by name."""
    checkpoint = torch.load(root / LAST, weights_only=True)
    optimizer = checkpoint["optimizer_states"][0]["state"]
    found = {n: v for n, v in checkpoint["state_dict"].items() if isinstance(v, torch.Tensor)}
    found |= {f"{name}_{i}": value for i, entry in optimizer.items() for name, value in entry.items()}
    found["step"] = torch.tensor([checkpoint["global_step"], checkpoint["epoch"]])
    found["lr"] = torch.tensor(checkpoint["lr_schedulers"][0]["_last_lr"])
    best = [v["best_model_score"] for key, v in checkpoint["callbacks"].items() if "val/vrmse" in key]
    found["best"] = best[0] if best[0] is not None else torch.zeros(())
    return found


def losses(root):
    """Return training and validation losses by (name, step), as they are logged."""
    newest = max((root / "logs").iterdir(), key=lambda folder: int(folder.name.split("_")[1]))
    found: dict[tuple[str, int], list[str]] = {}
    if not (newest / "metrics.csv").exists():  # nothing was left to do
        return found
    with (newest / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name in ("train/loss", "val/loss"):
                if row.get(name):
                    found.setdefault((name, int(row["step"])), []).append(row[name])
    return found


def assert_equal(expected, got, what):
    assert set(expected) == set(got)
    different = [n for n, v in expected.items() if not torch.equal(v.nan_to_num(7.0), got[n].nan_to_num(7.0))]
    assert not different, (what, different)


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_every_checkpoint_continues_bit_for_bit(flags, kept, turbulence_file, tiny_flags, tmp_path):
    root, copies = tmp_path / "run", tmp_path / "kept"
    copies.mkdir()
    command = ["fit", *tiny_flags(turbulence_file, root), "--trainer.max_epochs", "3", *QUANTIZED_SOON]
    command += flags
    kept.append(copies)
    main(command)
    kept.clear()
    expected, logged = tensors(root), losses(root)
    names = [path.name for path in sorted(copies.iterdir())]
    assert len(names) >= 3
    for name in names:
        shutil.rmtree(root)
        (root / "checkpoints").mkdir(parents=True)
        shutil.copy(copies / name, root / LAST)
        main([*command, "--ckpt_path", "last"])
        start = torch.load(copies / name, weights_only=True)["global_step"]
        assert_equal(expected, tensors(root), name)
        again = losses(root)
        assert again == {key: logged[key] for key in again}, name  # nothing twice, nothing else
        assert {key for key in logged if key[1] >= start} <= set(again), name


class Signal(Callback):
    """Sends this process a signal within its third step."""

    def __init__(self, number):
        self.number = number

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == 2:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "code", "accumulate", "step"),
    [(signal.SIGTERM, 143, 1, 3), (signal.SIGINT, 130, 1, 3), (signal.SIGTERM, 143, 2, 3)],
)
def test_a_signal_stops_at_a_whole_step(
    number, code, accumulate, step, turbulence_file, tiny_flags, tmp_path, capsys
):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    flags = [*QUANTIZED_SOON, "--trainer.accumulate_grad_batches", str(accumulate)]

    def run(root, signals, *more):
        TrainCLI(
            VQVAETask,
            FieldDataModule,
            seed_everything_default=0,
            args=["fit", *tiny_flags(turbulence_file, root), *flags, *more],
            trainer_defaults={"callbacks": [Signal(number)] if signals else []},
            signals=signals,
        )

    run(straight, None)
    with Signals() as signals, pytest.raises(SystemExit) as exit_info:
        run(stopped, signals)
    assert exit_info.value.code == code
    assert f"stopped by {number.name} at step {step}" in capsys.readouterr().err
    assert torch.load(stopped / LAST, weights_only=True)["global_step"] == step
    run(stopped, None, "--ckpt_path", "last")
    assert_equal(tensors(straight), tensors(stopped), number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_before_the_first_step_ends_at_once(tmp_path):
    code = (
        "import os, signal; from gust_torch.tasks.signals import Signals\n"
        "with Signals(): os.kill(os.getpid(), signal.SIGTERM); print('still here')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 143
    assert result.stdout == ""
    assert "stopped before the first step" in result.stderr


def test_a_forked_loader_ends_by_the_signals_of_its_owner():
    code = (
        "import os, signal, time; from gust_torch.tasks.signals import Signals\n"
        "with Signals():\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(60); os._exit(0)\n"
        "    time.sleep(0.2); os.kill(child, signal.SIGTERM); print(os.waitpid(child, 0)[1])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.strip() == str(int(signal.SIGTERM))
