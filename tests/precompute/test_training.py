"""Training of the encoder before the caches: once, continued, refused for another request."""

import json
from pathlib import Path

import pytest
import yaml

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.latents.cache import LatentCache
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute import task_data, training

CONFIGS = Path(__file__).parents[2] / "configs" / "autoencoder"


@pytest.fixture
def train_calls(monkeypatch):
    """Arguments of each training, which takes place."""
    calls = []
    original = training.train

    def train(arguments):
        calls.append(arguments)
        original(arguments)

    monkeypatch.setattr(training, "train", train)
    return calls


def test_the_encoder_is_trained_once(run, root, config, tmp_path, train_calls):
    flags = ["--config", config(), "--latent-len", 2]
    code, out, err = run("burgers1d", root, *flags)
    assert code == 0, err
    assert len(out.splitlines()) == 3  # nothing of the training on stdout
    assert "35 samples of 2x8 float32" in out
    folder = tmp_path / "cache" / "burgers1d_autoencoder"
    best = model_digest(load_model(folder / "checkpoints" / "best.ckpt", LatentAutoencoder))
    for split in ("train", "val", "test"):
        assert LatentCache.open(tmp_path / "cache" / f"burgers1d_{split}").key.encoder == best
    assert run("burgers1d", root, *flags, "--batch-size", 16)[1].count("up to date") == 3
    assert len(train_calls) == 1


def test_another_request_is_refused_and_trained_on_demand(
    run, root, config, tmp_path, train_calls, write_grid
):
    flags = ["--config", config(), "--splits", "val"]
    assert run("burgers1d", root, *flags)[0] == 0
    for change, reason in (
        (["--latent-dim", "4"], "options.--model.init_args.latent_dim: absent there, 4 now"),
        (["--seed", "4"], "options.--seed_everything: absent there, 4 now"),
        (["--config", config(name="other.yaml", max_epochs=2)], "configuration: "),
    ):
        code, _, err = run("burgers1d", root, *flags, *change)
        assert code == 1
        assert f"burgers1d_autoencoder holds a training of another request: {reason}" in err
        assert "; give --overwrite" in err
    (root / "burgers1d_train.h5").unlink()
    write_grid(root / "burgers1d_train.h5", 4, seed=8)
    assert "another request: data.train: " in run("burgers1d", root, *flags)[2]
    before = LatentCache.open(tmp_path / "cache" / "burgers1d_val").key.encoder
    assert len(train_calls) == 1
    code, out, err = run("burgers1d", root, *flags, "--overwrite")
    assert code == 0, err
    assert "new" in out
    assert len(train_calls) == 2
    assert LatentCache.open(tmp_path / "cache" / "burgers1d_val").key.encoder != before


def test_a_killed_training_goes_on_from_its_last_checkpoint(run, root, config, tmp_path, train_calls):
    flags = ["--config", config(), "--splits", "test"]
    assert run("burgers1d", root, *flags)[0] == 0
    folder = tmp_path / "cache" / "burgers1d_autoencoder"
    record = json.loads((folder / "stage.json").read_text())
    assert record["done"]
    (folder / "stage.json").write_text(json.dumps({**record, "done": False}))
    assert run("burgers1d", root, *flags)[1].count("up to date") == 1
    assert "--ckpt_path" not in train_calls[0]
    resumed = train_calls[1]
    assert resumed[resumed.index("--ckpt_path") + 1] == str(folder / "checkpoints" / "last.ckpt")
    assert json.loads((folder / "stage.json").read_text())["done"]
    (folder / "stage.json").write_text("{")
    assert "damaged" in run("burgers1d", root, *flags)[2]


def test_what_the_training_says_is_all_that_is_said(run, root, config, tmp_path):
    path = config()
    path.write_text(path.read_text().replace("width: 16", "width: 15"))
    code, out, err = run("burgers1d", root, "--config", path)
    assert (code, out) == (1, "")
    assert "num_heads=2 does not divide width=15" in err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [err.splitlines()[-1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"base_channels": 8}}, "trains no autoencoder"),
        ({"model": {"class_path": "gust_torch.VQVAETask"}}, "trains no autoencoder"),
        ({"model": {"class_path": "nowhere.Task"}}, "nowhere.Task is not of gust_torch, torch"),
        ({"model": {"class_path": "torch.Task"}}, "'torch' has no attribute 'Task'"),
        ({"model": [1]}, "trains no autoencoder"),
        ({"data": {"class_path": "lightning.LightningModule"}}, "be a FieldDataModule"),
    ],
)
def test_configurations_of_something_else_are_refused(run, root, config, tmp_path, change, message):
    path = config()
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    code, _, err = run("burgers1d", root, "--config", path)
    assert code == 1
    assert message in err
    assert len(err.splitlines()) == 1
    path.write_text("a: " + 5000 * "[")
    assert "recursion" in run("burgers1d", root, "--config", path)[2].splitlines()[0]
    path.write_text("a: [")
    assert "trains no autoencoder: while parsing" in run("burgers1d", root, "--config", path)[2]


def test_every_task_has_a_configuration_and_every_configuration_is_one_of_an_autoencoder(tmp_path):
    assert task_data.find_config("burgers1d", Path("a.h5"), None) == CONFIGS / "burgers1d.yaml"
    assert task_data.find_config("cfd2d", Path("a.h5"), None) == CONFIGS / "grid.yaml"
    with pytest.raises(ValueError, match="give a configuration by --config"):
        task_data.find_config("my_mesh", Path("a.zarr"), None)
    for path in CONFIGS.glob("*.yaml"):
        assert task_data.read_config(path).model["width"] > 0


def test_a_training_that_ended_too_early_is_not_done(run, root, config, tmp_path, monkeypatch):
    flags = ["--config", config(max_epochs=2), "--splits", "test"]
    with monkeypatch.context() as patch:
        train = training.train
        patch.setattr(training, "train", lambda given: train([*given, "--trainer.max_epochs=1"]))
        code, out, err = run("burgers1d", root, *flags)
    assert (code, out) == (1, "")
    assert "last.ckpt is of step 3, epoch 1, but the training goes to 2 epochs" in err.splitlines()[-1]
    assert not json.loads((tmp_path / "cache" / "burgers1d_autoencoder" / "stage.json").read_text())["done"]
    assert run("burgers1d", root, *flags)[1].count("new") == 1
