"""The training command with the latent operator: from the cache and on the fly, resumed, on two processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.checkpoint import load_model, save_model
from gust_torch.graph_spec import GraphSpec
from gust_torch.latents.dataset import LatentBatch
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.latent_operator import LatentOperator
from gust_torch.precompute.command import main as precompute
from gust_torch.spec import FieldSpec
from gust_torch.tasks.cli import main
from gust_torch.tasks.latent_operator import LatentOperatorTask
from gust_torch.tasks.validation import take
from solvers.common.hdf5_utils import HDF5Writer

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "latent" / "burgers1d.yaml"
SPEC = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))
TINY = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_heads": 2, "num_layers": 1, "num_frequencies": 3}
NUM_TIMES = 6
LAST = Path("checkpoints", "last.ckpt")


def write_task(path, num_trajectories, num_times=NUM_TIMES):
    """Decaying waves that travel, one viscosity a trajectory."""
    rng = np.random.default_rng(num_trajectories)
    x, t = (np.arange(16) + 0.5) / 16, 0.1 * np.arange(num_times)
    nu = 10.0 ** rng.uniform(-2, 0, num_trajectories)
    phase = rng.random((num_trajectories, 1, 1)) + t[:, None] + x
    values = np.exp(-nu[:, None, None] * t[:, None]) * np.sin(2 * np.pi * phase)
    metadata = {"solver": "test", "boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform"}
    with HDF5Writer(
        path,
        fields={"u": (16, 1)},
        coordinates={"x": x, "y": np.zeros(1)},
        metadata=metadata | {"length_x": 1.0, "length_y": 1.0},
        parameters={"nu": nu.tolist()},
    ) as writer:
        writer.append(
            {"u": values.reshape(-1, 16, 1).astype(np.float32)},
            time=np.tile(t, num_trajectories),
            trajectory=np.repeat(np.arange(num_trajectories), num_times),
        )
        writer.close(complete=True)


def save_encoder(path, seed):
    """Return an autoencoder with random weights."""
    torch.manual_seed(seed)
    model = LatentAutoencoder(SPEC, **TINY)
    model.set_statistics(torch.tensor([0.0]), torch.tensor([0.7]))
    save_model(model, path)


def make_cache(folder, encoder, root, task="burgers1d"):
    flags = ["--tasks", task, "--splits", "train", "val", "--root", str(root), "--cache-dir", str(folder)]
    return precompute([*flags, "--checkpoint", str(encoder), "--accelerator", "cpu", "--devices", "1"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return data, two encoders and the caches of both."""
    folder = tmp_path_factory.mktemp("latent_operator")
    (folder / "data").mkdir()
    write_task(folder / "data" / "burgers1d_train.h5", 6)
    write_task(folder / "data" / "burgers1d_val.h5", 2)
    for seed, name in enumerate(("encoder", "other")):
        save_encoder(folder / f"{name}.ckpt", seed)
        assert make_cache(folder / f"cache_{name}", folder / f"{name}.ckpt", folder / "data") == 0
    return folder


def flags(home, root, *, cache=None, encoder=None, **more):
    """Return flags of a tiny operator on the CPU."""
    values = {
        "training.latent_cache_dir": "null" if cache is None else home / cache,
        "model.init_args.width": 16,
        "model.init_args.num_layers": 1,
        "model.init_args.num_heads": 2,
        "data.init_args.root": home / "data",
        "data.init_args.batch_size": 4,
        "data.init_args.n_steps": 3,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.log_every_n_steps": 1,
        "trainer.default_root_dir": root,
    }
    if encoder is not None:
        values["data.init_args.encoder"] = home / encoder
    values |= {name.replace("__", "."): value for name, value in more.items()}
    config = values.pop("config", CONFIG)
    return ["--config", str(config), *(part for n, v in values.items() for part in (f"--{n}", str(v)))]


def last(root):
    """Return the last checkpoint, as it lies on disk."""
    return torch.load(root / LAST, weights_only=True)


@pytest.fixture(scope="module")
def trained(home, tmp_path_factory):
    """Folder of a run of two epochs from the cache."""
    folder = tmp_path_factory.mktemp("trained")
    main(["fit", *flags(home, folder, cache="cache_encoder")])
    return folder


def test_the_cache_gives_the_losses_of_encoding_on_the_fly(home, trained, tmp_path, logged):
    main(["fit", *flags(home, tmp_path / "raw", encoder="encoder.ckpt")])
    main(["fit", *flags(home, tmp_path / "other", cache="cache_other")])
    folders = (trained, tmp_path / "raw", tmp_path / "other")
    cached, raw, other = (logged(folder)["train/loss"] + logged(folder)["val/loss"] for folder in folders)
    assert len(raw) == 2 * 6 + 2  # 24 windows in batches of 4, two epochs
    # The encoder works in batches of other sizes, which moves the last digits.
    assert cached == pytest.approx(raw, rel=1e-5)
    assert other != pytest.approx(raw, rel=1e-2)


def test_a_run_learns_and_leaves_an_operator(home, trained, logged):
    assert logged(trained)["val/loss"][-1] < logged(trained)["val/persistence"][-1]
    model = load_model(trained / "checkpoints" / "best.ckpt", LatentOperator)
    assert model.parameter_names == ("nu",)
    assert model.condition_log.tolist() == [True, True]
    assert model.time_step_range.tolist() == pytest.approx([0.1, 0.1])
    for name, value in load_model(home / "encoder.ckpt", LatentAutoencoder).state_dict().items():
        assert torch.equal(model.autoencoder.state_dict()[name], value)
    optimized = sum(len(group["params"]) for group in last(trained)["optimizer_states"][0]["param_groups"])
    assert optimized == sum(p.requires_grad for p in model.parameters())


def test_a_crashed_run_resumes_bit_for_bit_within_an_epoch(home, trained, tmp_path, monkeypatch):
    arguments = [*flags(home, tmp_path, cache="cache_encoder"), "--last.every_n_train_steps", "2"]
    step = LatentOperatorTask.training_step

    def crash(self, batch, batch_idx):
        if self.global_step == 9:
            raise RuntimeError("crash")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LatentOperatorTask, "training_step", crash)
        with pytest.raises(RuntimeError, match="crash"):
            main(["fit", *arguments])
    assert last(tmp_path)["global_step"] == 8
    main(["fit", *arguments, "--ckpt_path", "last"])
    expected, got = last(trained)["state_dict"], last(tmp_path)["state_dict"]
    assert set(expected) == set(got)
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_another_encoder_than_that_of_the_checkpoint_is_refused(home, trained, tmp_path, refused, logged):
    path = ["--ckpt_path", str(trained / LAST)]
    for command in ("fit", "validate"):
        error = refused([command, *flags(home, tmp_path, cache="cache_other"), *path])
        assert "with another autoencoder than" in error
    main(["validate", *flags(home, tmp_path / "own", encoder="encoder.ckpt"), *path])
    assert logged(tmp_path / "own")["val/loss"][-1] == pytest.approx(
        logged(trained)["val/loss"][-1], rel=1e-5
    )


def test_the_saved_config_runs_again(trained, tmp_path, logged):
    saved = trained / "logs" / "version_0" / "config.yaml"
    main(["fit", f"--config={saved}", "--trainer.default_root_dir", str(tmp_path)])
    assert logged(tmp_path)["train/loss"] == logged(trained)["train/loss"]


def test_bf16_and_gradient_clipping(home, tmp_path, refused, logged):
    half = flags(home, tmp_path / "half", cache="cache_encoder", trainer__precision="bf16-true")
    assert "trainer.precision=bf16-true would" in refused(["fit", *half])
    more = {"trainer__precision": "bf16-mixed", "trainer__gradient_clip_val": 1e-3, "trainer__max_epochs": 1}
    main(["fit", *flags(home, tmp_path, encoder="encoder.ckpt", **more)])
    assert np.isfinite(logged(tmp_path)["val/loss"]).all()


@pytest.mark.slow
def test_two_processes_train_from_the_cache(home, tmp_path, logged):
    ddp = {"trainer__devices": 2, "trainer__strategy": "ddp", "trainer__max_epochs": 1}
    arguments = flags(home, tmp_path, cache="cache_encoder", **ddp)
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "fit", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert last(tmp_path)["global_step"] == 3  # 24 windows on two processes, batches of 4
    assert result.stderr.count("tokens of 8 features from the cache") == 1
    one = [*flags(home, tmp_path / "one", cache="cache_encoder"), "--ckpt_path", str(tmp_path / LAST)]
    main(["validate", *one])
    for name in ("val/loss", "val/persistence"):  # means over the windows of both processes
        assert logged(tmp_path)[name][-1] == pytest.approx(logged(tmp_path / "one")[name][-1], rel=1e-5)


def test_a_data_module_without_latents_is_told_apart(home, tmp_path, turbulence_file, refused):
    root = ["--trainer.default_root_dir", str(tmp_path)]
    arguments = ["--data.data_path", str(turbulence_file), "--training.latent_cache_dir", "somewhere", *root]
    expected = "training.latent_cache_dir=somewhere is set, but FieldDataModule reads no latent cache"
    assert expected in refused(["fit", *arguments])
    graphs = ["--data", "gust_torch.GraphDataModule", "--data.init_args.kind", "mesh"]
    graphs += ["--data.init_args.train_path", "a.zarr", "--data.init_args.val_path", "b.zarr"]
    assert "GraphDataModule reads no latent cache" in refused(["fit", *arguments[2:], *graphs])
    both = flags(home, tmp_path, cache="cache_encoder", data__init_args__latent_cache_dir="elsewhere")
    assert "differ; give the first alone" in refused(["fit", *both])
    assert "training.latent_cache_dir" in refused(["fit", *flags(home, tmp_path)])


def test_windows_without_a_step_are_refused(home, tmp_path, refused):
    arguments = flags(home, tmp_path, cache="cache_encoder", data__init_args__n_steps=1)
    assert "data.n_steps=1 hold no step" in refused(["fit", *arguments])


def test_a_steady_problem_is_refused(home, tmp_path, refused):
    for split, num in (("train", 4), ("val", 2)):
        write_task(tmp_path / f"darcy2d_{split}.h5", num, num_times=1)
    assert make_cache(tmp_path / "cache", home / "encoder.ckpt", tmp_path, "darcy2d") == 0
    steady = {"data__init_args__task": "darcy2d", "data__init_args__root": tmp_path}
    for source in ({"encoder": "encoder.ckpt"}, {"cache": tmp_path / "cache"}):
        arguments = flags(home, tmp_path / "run", **source, **steady)
        assert "steady: no times to step through" in refused(["fit", *arguments])


def test_particles_train_from_their_cache(tmp_path, logged):
    pytest.importorskip("zarr")
    pytest.importorskip("torch_geometric")
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import KINDS

    rng = np.random.default_rng(0)
    for split, num in (("train", 5), ("val", 2)):
        with RaggedWriter(tmp_path / f"particles_advect_{split}.zarr", KINDS["particles"]) as writer:
            for i in range(num):
                arrays = {name: rng.random((4, 9 + i, 3), np.float32) for name in ("positions", "velocities")}
                arrays |= {"indices": np.array([1, 0], np.int32), "edges": np.array([[0, 1]], np.int32)}
                arrays["indptr"] = np.array([0, 1] + [2] * (8 + i), np.int32)
                writer.append(arrays, source=f"{i}.npz")
    spec = GraphSpec(fields=("velocities",), components=(3,), num_dims=3, moving=True)
    torch.manual_seed(0)
    save_model(LatentAutoencoder(spec, **TINY), tmp_path / "encoder.ckpt")
    assert make_cache(tmp_path / "cache", tmp_path / "encoder.ckpt", tmp_path, "particles_advect") == 0
    more = {"config": CONFIG.with_name("particles_advect.yaml"), "data__init_args__root": tmp_path}
    main(["fit", *flags(tmp_path, tmp_path / "run", cache="cache", **more)])
    assert len(logged(tmp_path / "run")["train/loss"]) == 2 * 2  # 10 windows in batches of 4
    model = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt", LatentOperator)
    assert model.spec == spec


def test_the_first_windows_of_a_batch() -> None:
    """The length of a batch is that of its tensors."""
    batch = LatentBatch(torch.zeros(3, 2, 4, 5), torch.ones(3, 1), torch.zeros(3, 0), encoded=True)
    part = take(batch, 2)
    assert isinstance(part, LatentBatch)
    assert [len(part.states), len(part.time_steps), len(part.parameters), part.encoded] == [2, 2, 2, True]
