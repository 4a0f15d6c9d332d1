"""The training command with the latent configurations, and the choice of task and data by class path."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gust_torch.checkpoint import load_model
from gust_torch.graph_spec import GraphSpec
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.tasks.cli import main, names_class
from solvers.common.hdf5_utils import HDF5Writer

CONFIGS = Path(__file__).parents[2] / "configs" / "autoencoder"
TINY = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_heads": 2, "num_layers": 1, "num_frequencies": 3}


def burgers_file(folder):
    """Four trajectories of ten frames on a line of 32 points."""
    x = np.arange(32) / 32
    phases = np.random.default_rng(0).random((40, 1))
    values = np.sin(2 * np.pi * (x + phases)).astype(np.float32)[..., None]
    metadata = {"solver": "test", "boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform"}
    metadata |= {"length_x": 1.0, "length_y": 1.0}
    axes = {"x": x, "y": np.zeros(1)}
    with HDF5Writer(folder / "a.h5", fields={"u": (32, 1)}, coordinates=axes, metadata=metadata) as writer:
        trajectory = np.repeat(np.arange(4, dtype=np.int32), 10)
        writer.append({"u": values}, time=np.tile(np.arange(10.0), 4), trajectory=trajectory)
        writer.close(complete=True)
    return ["--data.data_path", str(folder / "a.h5"), "--data.val_fraction", "0.25"]


def stores(folder, kind, samples):
    """Return flags of a training and a validation store."""
    pytest.importorskip("zarr")
    pytest.importorskip("torch_geometric")
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import KINDS

    flags = []
    for split, part in (("train", samples[:-2]), ("val", samples[-2:]), ("test", samples[-2:])):
        with RaggedWriter(folder / f"{split}.zarr", KINDS[kind]) as writer:
            for index, arrays in enumerate(part):
                writer.append(arrays, source=f"shard_{index}.npz")
        flags += [f"--data.init_args.{split}_path", str(folder / f"{split}.zarr")]
    return flags


def mesh_stores(folder):
    from gust_torch.data.graphs.synthetic import random_mesh

    return stores(folder, "mesh", [random_mesh(20 + i, i) for i in range(6)])


def particle_stores(folder):
    rng = np.random.default_rng(0)
    samples = [
        {
            "positions": rng.random((3, 9 + i, 3), dtype=np.float32),
            "velocities": rng.standard_normal((3, 9 + i, 3)).astype(np.float32),
            "indices": np.array([1, 0], np.int32),
            "indptr": np.array([0, 1] + [2] * (8 + i), np.int32),
            "edges": np.array([[0, 1]], np.int32),
        }
        for i in range(6)
    ]
    return stores(folder, "particles", samples)


DATA = {
    "burgers1d": burgers_file,
    "grid": burgers_file,
    "darcy2d_mesh": mesh_stores,
    "particles_advect": particle_stores,
}
NAMES = {
    "burgers1d": ("u",),
    "grid": ("u",),
    "darcy2d_mesh": ("f", "u"),
    "particles_advect": ("velocities_x", "velocities_y", "velocities_z"),
}


def fit_flags(config, folder, root):
    """Return flags of a tiny model of a configuration, on the CPU."""
    values = {f"--model.init_args.{name}": value for name, value in TINY.items()}
    values |= {"--trainer.accelerator": "cpu", "--trainer.devices": 1, "--trainer.max_epochs": 2}
    values |= {"--trainer.enable_progress_bar": "false", "--trainer.enable_model_summary": "false"}
    values |= {"--trainer.log_every_n_steps": 1, "--trainer.default_root_dir": root}
    flags = [part for name, value in values.items() for part in (name, str(value))]
    return ["--config", str(CONFIGS / f"{config}.yaml"), *DATA[config](folder), *flags]


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_each_config_trains_resumes_and_gives_a_model(config, tmp_path):
    flags = fit_flags(config, tmp_path, tmp_path / "run")
    main(["fit", *flags])
    best = load_model(tmp_path / "run" / "checkpoints" / "best.ckpt", LatentAutoencoder)
    assert best.spec.names == NAMES[config]
    assert best.latent_shape == (4, 8)
    assert not torch.equal(best.std, torch.ones_like(best.std))  # statistics came along
    if isinstance(best.spec, GraphSpec):
        assert bool((best.unit.lower > 0).all() and (best.unit.upper < 1).all())
    header = (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    expected = {f"val/vrmse_{name}" for name in NAMES[config] if len(NAMES[config]) > 1}
    assert expected | {"val/vrmse", "val/loss", "train/loss"} <= set(header.split(","))
    main(["fit", *flags, "--trainer.max_epochs", "3", "--ckpt_path", "last"])
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2


def test_the_saved_config_runs_again(tmp_path):
    main(["fit", *fit_flags("burgers1d", tmp_path, tmp_path)])
    saved = tmp_path / "logs" / "version_0" / "config.yaml"
    again = tmp_path / "again"
    main(["fit", f"--config={saved}", "--trainer.default_root_dir", str(again)])
    assert (again / "checkpoints" / "last.ckpt").exists()
    metrics = [(root / "logs" / "version_0" / "metrics.csv").read_text() for root in (tmp_path, again)]
    assert metrics[0] == metrics[1]


def test_a_class_path_in_a_config_or_a_flag_is_found(tmp_path):
    plain, named = tmp_path / "plain.yaml", tmp_path / "named.yaml"
    plain.write_text(yaml.safe_dump({"model": {"lr": 0.1}, "data": {"class_path": "a.B"}}))
    named.write_text(yaml.safe_dump({"model": {"class_path": "a.B"}}))
    assert not names_class(["fit", "--config", str(plain)], "model")
    assert names_class(["fit", "--config", str(plain)], "data")
    assert names_class(["fit", "-c", str(plain), f"--config={named}"], "model")
    assert names_class(["fit", "--model.class_path=a.B"], "model")
    assert names_class(["fit", "--model", "a.B"], "model")
    assert not names_class(["fit", "--model", str(plain), '--model={"lr": 1}', "--model.lr", "B"], "model")
    assert not names_class(["fit", "--config", str(tmp_path / "nowhere.yaml"), "--config"], "model")


def test_a_config_from_a_pipe_is_left_to_the_parser():
    reading, writing = os.pipe()
    os.write(writing, b"model: {class_path: a.B}")
    os.close(writing)
    assert not names_class(["fit", "--config", f"/dev/fd/{reading}"], "model")
    assert os.read(reading, 100).startswith(b"model")
    os.close(reading)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.init_args.patch_size", "5"], "patch_size=5 does not divide the grid 32x1"),
        (["--model.init_args.num_heads", "3"], "num_heads=3 does not divide width=16"),
        (["--model.init_args.num_queries", "0"], "num_queries >= 1"),
        (["--data.data_path", "nowhere.h5"], "nowhere.h5"),
        (["--data.batch_size", "0"], "expected batch_size >= 1"),
    ],
)
def test_mistakes_end_with_one_line_and_exit_code_1(flags, message, refused, tmp_path):
    assert message in refused(["fit", *fit_flags("burgers1d", tmp_path, tmp_path / "run"), *flags])


def test_a_mesh_without_fields_needs_a_transform(refused, tmp_path):
    flags = fit_flags("darcy2d_mesh", tmp_path, tmp_path / "run")
    error = refused(["fit", *flags, "--data.init_args.transform", "null"])
    assert "no node field f, u in the items" in error
