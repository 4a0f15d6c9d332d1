"""The training command: a tiny fit for each config, its files, its errors, and resuming."""

import errno
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning import Callback

from gust_torch.checkpoint import load_model
from gust_torch.data.datamodule import FieldDataModule
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.checkpoints import FileCheckpointIO
from gust_torch.tasks.cli import main
from gust_torch.tasks.training import RedactedConfig, TrainCLI
from gust_torch.tasks.vqvae import VQVAETask
from solvers.common.files import WriterLock
from solvers.common.hdf5_utils import repack

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "vqvae").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_config_trains(config, turbulence_file, convection_file, tiny_flags, tmp_path, logged):
    convection = "rayleigh_benard" in config.stem
    flags = tiny_flags(convection_file if convection else turbulence_file, tmp_path)
    scales = [[1, 1], [4, 1], [8, 2]] if convection else [[1, 1], [2, 2], [4, 4]]
    main(["fit", "--config", str(config), *flags, "--model.scales", str(scales)])
    metrics = logged(tmp_path)
    expected = {"val/loss", "val/vrmse", *(f"val/perplexity_ratio_{h}x{w}" for h, w in scales)}
    expected |= {f"val/spectral_error_{band}" for band in ("large", "inertial", "small")}
    assert expected <= set(metrics)
    assert all(0 < value[-1] <= 1 for name, value in metrics.items() if "perplexity" in name)
    model = load_model(tmp_path / "checkpoints" / "best.ckpt")
    assert model.spec.names == (("buoyancy", "vorticity") if convection else ("vorticity",))
    assert model.quantizer.initialized
    assert torch.allclose(model.std, torch.tensor(5.0), rtol=0.2)
    assert list(tmp_path.glob("logs/*/figures/reconstructions.png"))
    assert list(tmp_path.glob("logs/*/figures/code_usage.png"))


def test_channels_walls_and_the_spectral_loss(convection_file, tiny_flags, tmp_path, logged):
    flags = ["--model.scales", "[[1,1],[2,1],[8,2]]", "--model.spectral_weight", "0.1"]
    flags += ["--data.fields", "[vorticity,buoyancy]", "--model.compile", "false"]
    main(["fit", *tiny_flags(convection_file, tmp_path), *flags])
    metrics = logged(tmp_path)
    assert {"val/vrmse_buoyancy", "val/vrmse_vorticity", "train/spectral"} <= set(metrics)
    assert load_model(tmp_path / "checkpoints" / "last.ckpt").spec.names == ("vorticity", "buoyancy")


def test_the_last_step_is_saved_wherever_validation_falls(turbulence_file, tiny_flags, tmp_path):
    flags = ["--trainer.max_steps", "7", "--trainer.max_epochs", "-1"]
    flags += ["--trainer.check_val_every_n_epoch", "5"]
    main(["fit", *tiny_flags(turbulence_file, tmp_path), *flags])
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 7


def test_validate_uses_the_statistics_of_the_checkpoint(trained, tiny_flags, tmp_path, logged):
    root, data = trained
    checkpoint = str(root / "checkpoints" / "last.ckpt")
    main(["validate", *tiny_flags(data, tmp_path), "--ckpt_path", checkpoint])
    assert logged(tmp_path)["val/vrmse"][-1] == pytest.approx(logged(root)["val/vrmse"][-1], rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.data_path", "nowhere.h5"], "nowhere.h5"),
        (["--model.scales", "[[1,1],[8,8]]"], "use scales [[1, 1], [2, 2], [4, 4]]"),
        (["--model.channel_mult", "[1,1,1,1,1]"], "give channel_mult 4 entries"),
        (["--model.attention_heads", "3"], "attention_heads=3 does not divide"),
        (["--trainer.max_epochs", "-1"], "set --trainer.max_epochs or --trainer.max_steps"),
        (["--ckpt_path", "nothing.ckpt"], "nothing.ckpt"),
        (["--data.fields", "[pressure]"], "pressure"),
        (["--trainer.precision", "64-true"], "choose one of 32-true, bf16-mixed"),
        (["--ckpt_path", "last"], "leave --ckpt_path out to begin"),
        (["--ckpt_path", "http://localhost:1/model.ckpt?key=secret"], "http://localhost:1/model.ckpt: "),
        (["--trainer.callbacks", "os.system"], "os.system is not of gust_torch"),
    ],
)
def test_mistakes_end_with_one_line_and_exit_code_1(
    flags, message, turbulence_file, tiny_flags, refused, tmp_path
):
    assert message in refused(["fit", *tiny_flags(turbulence_file, tmp_path), *flags])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fit", "--trainer.max_epoch", "3"], "--trainer.max_epoch"),
        (["fit", "--trainer.max_epochs", "3"], "--data.data_path is required"),
        (
            ["fit", "--model", "gust_torch.LatentAutoencoderTask", "--model.widht", "3"],
            "Option 'widht' is not",
        ),
        (["fti"], "there is no 'fti'; give one of fit, validate"),
        (["predict"], "there is no 'predict'"),
    ],
)
def test_a_mistyped_flag_ends_with_one_line_and_exit_code_2(arguments, line, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert line in error[0]


def test_without_arguments_the_help_is_printed_before_anything_is_imported():
    code = "import sys; from gust_torch.tasks.cli import main; main([]); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "train.py fit" in result.stdout
    assert "predict" not in result.stdout


def test_validate_needs_a_checkpoint(turbulence_file, tiny_flags, refused, tmp_path):
    error = refused(["validate", *tiny_flags(turbulence_file, tmp_path)])
    assert "validate needs --ckpt_path" in error


def test_an_earlier_training_is_not_replaced(trained, tiny_flags, tmp_path, refused, caplog):
    root = tmp_path / "run"
    shutil.copytree(trained[0], root)
    flags = [*tiny_flags(trained[1], root), "--trainer.max_epochs", "1"]
    newest = root / "checkpoints" / "last.ckpt"
    before = newest.read_bytes()
    assert "continue it with --ckpt_path last" in refused(["fit", *flags])
    assert newest.read_bytes() == before
    other = ["--ckpt_path", "last", "--model.base_channels", "16"]
    assert "is of another architecture" in refused(["fit", *flags, *other])
    caplog.clear()
    main(["fit", *flags, "--overwrite", "true", "--seed_everything", "1"])
    assert newest.read_bytes() != before
    # The end names what there is and the next command.
    lines = [record.getMessage() for record in caplog.records]
    assert "best val/vrmse" in lines[-2]
    assert str(root / "checkpoints" / "best.ckpt") in lines[-2]
    assert lines[-1].startswith("next: python -m gust_torch.tokenizer save --checkpoint")


def test_the_flags_of_the_model_are_read_from_its_signature(capsys):
    config = str(CONFIGS[0].with_name("turbulence.yaml"))  # its data need not be there
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", config, "--data.data_path", "nowhere.h5", "--print_config"])
    values = yaml.safe_load(capsys.readouterr().out)["model"]
    for name, parameter in list(inspect.signature(VQVAE2d).parameters.items())[1:]:
        assert name in values
        if name in ("use_attention", "phi_ratio", "autoencoder_steps", "replace_every"):  # not in the file
            assert values[name] == parameter.default


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stretch": 2}, "lengths: [4.0, 2.0] there, [8.0, 2.0] now"),
        ({"boundary_x": "wall"}, "boundary"),
        ({"times": 1000.0}, "std"),
        ({"flags": ["--data.val_fraction", "0.2"]}, "training samples"),
        ({"roll": 1}, "content"),
    ],
    ids=lambda change: str(next(iter(change))) if isinstance(change, dict) else "",
)
def test_other_data_than_those_of_the_checkpoint_are_refused(
    change, words, trained, tiny_flags, tmp_path, caplog, refused
):
    root, data = tmp_path / "run", tmp_path / "other.h5"
    shutil.copytree(trained[0], root)
    shutil.copy(trained[1], data)
    with h5py.File(data, "a") as file:
        values = file["fields/vorticity"]
        values[:] = np.roll(values[:] * change.get("times", 1.0), change.get("roll", 0), axis=0)
        file["metadata"].attrs.update({k: v for k, v in change.items() if k.startswith("bound")})
        file["coordinates/x"][:] *= change.get("stretch", 1)
    flags = [*tiny_flags(data, root), "--trainer.max_epochs", "2", "--ckpt_path", "last"]
    flags += change.get("flags", [])
    error = refused(["fit", *flags])
    assert "was made from other data" in error
    assert words in error
    main(["fit", *flags, "--data.allow_changed", "true"])
    assert "going on, since the change is allowed" in caplog.text


def test_a_moved_and_repacked_file_continues(trained, tiny_flags, tmp_path):
    root, data = tmp_path / "run", tmp_path / "moved.h5"
    shutil.copytree(trained[0], root)
    shutil.copy(trained[1], data)
    repack(data, compression="gzip")
    main(["fit", *tiny_flags(data, root), "--trainer.max_epochs", "2", "--ckpt_path", "last"])
    assert states(root / "checkpoints" / "last.ckpt")[1]["epoch"] == 1


@pytest.fixture(scope="module")
def trained(turbulence_file, tiny_flags, tmp_path_factory):
    """Folder and data of a run of one epoch."""
    root = tmp_path_factory.mktemp("trained")
    main(["fit", *tiny_flags(turbulence_file, root), "--trainer.max_epochs", "1"])
    return root, turbulence_file


@pytest.mark.parametrize(
    "flags",
    [
        ["--trainer.overfit_batches", "2"],
        ["--trainer.enable_checkpointing", "false"],
        ["--trainer.logger", "false"],
        ["--trainer.precision", "bf16-mixed"],
    ],
    ids=lambda flags: flags[0],
)
def test_flags_of_the_trainer_are_understood(flags, turbulence_file, tiny_flags, tmp_path):
    main(["fit", *tiny_flags(turbulence_file, tmp_path), "--trainer.max_epochs", "1", *flags])
    assert (tmp_path / "checkpoints" / "last.ckpt").exists() == ("enable_checkpointing" not in flags[0])


@pytest.mark.parametrize("kept", [1, 2, -1])
def test_the_best_is_the_best(kept, turbulence_file, tiny_flags, tmp_path, monkeypatch):
    scores = [0.9, 0.3, 0.5, 0.6, 0.8]
    metrics = VQVAETask.metrics

    def scored(self, means):
        return {**metrics(self, means), "val/vrmse": torch.tensor(scores[self.current_epoch])}

    monkeypatch.setattr(VQVAETask, "metrics", scored)
    flags = ["--data.batch_size", "34", "--trainer.max_epochs", "5", "--best.save_top_k", str(kept)]
    main(["fit", *tiny_flags(turbulence_file, tmp_path), *flags])
    assert states(tmp_path / "checkpoints" / "best.ckpt")[1]["epoch"] == 1
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("best-*"))
    assert len(names) == {1: 0, 2: 2, -1: 5}[kept]
    if kept == 2:
        assert names[0].startswith("best-epoch0001-step0000002-vrmse0.3")


def test_a_full_disk_names_the_checkpoint_and_keeps_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "run" / "last.ckpt"
    FileCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        FileCheckpointIO().save_checkpoint({"step": 2}, path)
    assert error.value.filename == str(path)
    assert FileCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [item.name for item in path.parent.iterdir()] == ["last.ckpt"]


def test_two_trainings_in_one_folder(turbulence_file, tiny_flags, tmp_path, refused):
    (tmp_path / "checkpoints").mkdir()
    lock = WriterLock(tmp_path / "checkpoints" / "last.ckpt")
    error = refused(["fit", *tiny_flags(turbulence_file, tmp_path)])
    lock.release()
    assert "another process is writing it" in error


def test_a_signed_url_is_not_saved(trained, tiny_flags, tmp_path):
    given = Namespace(data=Namespace(data_path=["s3://me:secret@host/a.h5?signature=1", "b.h5"]), seed=0)
    saved = RedactedConfig(None, given).config
    assert saved.data.data_path == ["s3://host/a.h5", "b.h5"]
    assert "secret" in given.data.data_path[0]


def states(path):
    """Everything a checkpoint holds that training changes, tensors by name."""
    checkpoint = torch.load(path, weights_only=True)
    optimizer = checkpoint["optimizer_states"][0]["state"]
    found = {
        name: value for name, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)
    }
    found |= {f"{name}_{i}": value for i, entry in optimizer.items() for name, value in entry.items()}
    return found, checkpoint


class Crash(Callback):
    """Fails before the training step after `step` steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def test_long_epochs_are_saved_as_time_passes(turbulence_file, tiny_flags, tmp_path):
    flags = [*tiny_flags(turbulence_file, tmp_path), "--recent.train_time_interval", "0:00:00.000001"]
    with pytest.raises(RuntimeError, match="crash"):
        TrainCLI(VQVAETask, FieldDataModule, args=["fit", *flags], trainer_defaults={"callbacks": [Crash(3)]})
    assert states(tmp_path / "checkpoints" / "last.ckpt")[1]["global_step"] == 3
    main(["fit", *flags, "--ckpt_path", "last"])
    assert states(tmp_path / "checkpoints" / "last.ckpt")[1]["global_step"] == 10
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
