"""The training command: a tiny fit for each config, its files, its errors, and resuming."""

import csv
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from lightning import Callback

from gust_torch.checkpoint import load_model
from gust_torch.data.datamodule import FieldDataModule
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.tasks.cli import TrainCLI, main
from gust_torch.tasks.vqvae import VQVAETask

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "vqvae").glob("*.yaml"))


def logged(root):
    """Every metric of the newest log, last value each."""
    newest = max((root / "logs").iterdir(), key=lambda folder: int(folder.name.split("_")[1]))
    with (newest / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: float(row[name]) for row in rows for name in row if row[name]}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_config_trains(config, turbulence_file, convection_file, tiny_flags, tmp_path):
    convection = "rayleigh_benard" in config.stem
    flags = tiny_flags(convection_file if convection else turbulence_file, tmp_path)
    scales = [[1, 1], [4, 1], [8, 2]] if convection else [[1, 1], [2, 2], [4, 4]]
    main(["fit", "--config", str(config), *flags, "--model.scales", str(scales)])
    metrics = logged(tmp_path)
    expected = {"val/loss", "val/vrmse", *(f"val/perplexity_ratio_{h}x{w}" for h, w in scales)}
    expected |= {f"val/spectral_error_{band}" for band in ("large", "inertial", "small")}
    assert expected <= set(metrics)
    assert all(0 < value <= 1 for name, value in metrics.items() if "perplexity" in name)
    model = load_model(tmp_path / "checkpoints" / "best.ckpt")
    assert model.spec.names == (("buoyancy", "vorticity") if convection else ("vorticity",))
    assert model.quantizer.initialized
    assert torch.allclose(model.std, torch.tensor(5.0), rtol=0.2)
    assert list(tmp_path.glob("logs/*/figures/reconstructions_*.png"))
    assert list(tmp_path.glob("logs/*/figures/code_usage_*.png"))


def test_channels_walls_and_the_spectral_loss(convection_file, tiny_flags, tmp_path):
    flags = ["--model.scales", "[[1,1],[2,1],[8,2]]", "--model.spectral_weight", "0.1"]
    flags += ["--data.fields", "[vorticity,buoyancy]", "--model.compile", "false"]
    main(["fit", *tiny_flags(convection_file, tmp_path), *flags])
    metrics = logged(tmp_path)
    assert {"val/vrmse_buoyancy", "val/vrmse_vorticity", "train/spectral"} <= set(metrics)
    assert load_model(tmp_path / "checkpoints" / "last.ckpt").spec.names == ("vorticity", "buoyancy")


def test_the_last_step_is_saved_wherever_validation_falls(turbulence_file, tiny_flags, tmp_path):
    flags = [
        "--trainer.max_steps",
        "7",
        "--trainer.max_epochs",
        "-1",
        "--trainer.check_val_every_n_epoch",
        "5",
    ]
    main(["fit", *tiny_flags(turbulence_file, tmp_path), *flags])
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 7


def test_validate_uses_the_statistics_of_the_checkpoint(turbulence_file, tiny_flags, tmp_path, capsys):
    main(["fit", *tiny_flags(turbulence_file, tmp_path)])
    trained = logged(tmp_path)["val/vrmse"]
    checkpoint = str(tmp_path / "checkpoints" / "last.ckpt")
    main(["validate", *tiny_flags(turbulence_file, tmp_path), "--ckpt_path", checkpoint])
    assert logged(tmp_path)["val/vrmse"] == pytest.approx(trained, rel=1e-5)


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
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch"),
    ],
)
def test_mistakes_end_with_one_line_and_exit_code_1(
    flags, message, turbulence_file, tiny_flags, tmp_path, capfd
):
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", *tiny_flags(turbulence_file, tmp_path), *flags])
    assert exit_info.value.code == 1
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert message in error[0]


def test_a_wrong_option_of_a_named_class_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model", "gust_torch.LatentAutoencoderTask", "--model.widht", "3"])
    line = "error: LatentAutoencoderTask: Option 'widht' is not accepted; `fit --help` lists what there is\n"
    assert capsys.readouterr().err == line


def test_an_earlier_training_is_not_replaced(turbulence_file, tiny_flags, tmp_path, capsys):
    flags = [*tiny_flags(turbulence_file, tmp_path), "--trainer.max_epochs", "1"]
    main(["fit", *flags])
    newest = tmp_path / "checkpoints" / "last.ckpt"
    before = newest.read_bytes()
    with pytest.raises(SystemExit):
        main(["fit", *flags])
    assert "continue it with --ckpt_path last" in capsys.readouterr().err
    assert newest.read_bytes() == before
    with pytest.raises(SystemExit):
        main(["fit", *flags, "--ckpt_path", "last", "--model.base_channels", "16"])
    assert "is of another architecture" in capsys.readouterr().err
    main(["fit", *flags, "--overwrite", "true", "--seed_everything", "1"])
    assert newest.read_bytes() != before


def test_task_and_model_have_the_same_arguments():
    model = list(inspect.signature(VQVAE2d).parameters.values())[1:]
    task = inspect.signature(VQVAETask).parameters
    types = get_type_hints(VQVAE2d.__init__), get_type_hints(VQVAETask.__init__)
    for parameter in model:
        assert task[parameter.name].default == parameter.default, parameter.name
        assert types[0][parameter.name] == types[1][parameter.name], parameter.name


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


@pytest.mark.parametrize("step", [3, 9], ids=["before quantization", "after it"])
def test_a_crashed_run_resumes_bit_for_bit_within_an_epoch(step, turbulence_file, tiny_flags, tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    flags = ["--model.autoencoder_steps", "5", "--model.replace_every", "4", "--model.augment_shifts", "true"]
    flags += ["--trainer.max_epochs", "6", "--last.every_n_train_steps", "2"]
    main(["fit", *tiny_flags(turbulence_file, straight), *flags])
    with pytest.raises(RuntimeError, match="crash"):
        TrainCLI(
            VQVAETask,
            FieldDataModule,
            seed_everything_default=0,
            args=["fit", *tiny_flags(turbulence_file, broken), *flags],
            trainer_defaults={"callbacks": [Crash(step)]},
        )
    assert states(broken / "checkpoints" / "last.ckpt")[1]["global_step"] == step - 1
    main(["fit", *tiny_flags(turbulence_file, broken), *flags, "--ckpt_path", "last"])
    expected, one = states(straight / "checkpoints" / "last.ckpt")
    got, other = states(broken / "checkpoints" / "last.ckpt")
    assert other["global_step"] == one["global_step"] == 30
    assert other["lr_schedulers"][0]["_last_lr"] == one["lr_schedulers"][0]["_last_lr"]
    assert one["lr_schedulers"][0]["_last_lr"][0] == pytest.approx(1e-6)  # the schedule ends with the run
    assert set(expected) == set(got)
    for name, value in expected.items():
        assert torch.equal(value.nan_to_num(7.0), got[name].nan_to_num(7.0)), name
