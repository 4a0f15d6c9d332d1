"""Tiny converted data, tiny configurations, and the command in this process."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from gust_torch.precompute.command import main
from solvers.common.hdf5_utils import HDF5Writer

NUM_TIMES = 7
TINY = {
    "latent_len": 4,
    "latent_dim": 8,
    "width": 16,
    "num_local_layers": 1,
    "num_layers": 1,
    "num_heads": 2,
    "num_frequencies": 3,
}


def write_grid(path: Path, num_trajectories: int, *, seed: int, points: int = 32) -> None:
    """Sines of random phase on a line."""
    x = np.arange(points) / points
    num = num_trajectories * NUM_TIMES
    phases = np.random.default_rng(seed).random((num, 1))
    values = np.sin(2 * np.pi * (x + phases)).astype(np.float32)[..., None]
    metadata = {"solver": "test", "boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform"}
    metadata |= {"length_x": 1.0, "length_y": 1.0}
    with HDF5Writer(
        path, fields={"u": (points, 1)}, coordinates={"x": x, "y": np.zeros(1)}, metadata=metadata
    ) as writer:
        trajectory = np.repeat(np.arange(num_trajectories, dtype=np.int32), NUM_TIMES)
        time = np.tile(0.5 * np.arange(NUM_TIMES), num_trajectories)
        writer.append({"u": values}, time=time, trajectory=trajectory)
        writer.close(complete=True)


def write_stores(root: Path, task: str, kind: str, samples: list) -> None:
    """All samples but two train, one validates, one tests."""
    pytest.importorskip("zarr")
    pytest.importorskip("torch_geometric")
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import KINDS

    for split, part in (("train", samples[:-2]), ("val", samples[-2:-1]), ("test", samples[-1:])):
        with RaggedWriter(root / f"{task}_{split}.zarr", KINDS[kind]) as writer:
            for index, arrays in enumerate(part):
                writer.append(arrays, source=f"shard_{index}.npz")


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(name="write_grid")
def write_grid_fixture() -> Callable[..., None]:
    """`write_grid(path, num_trajectories, seed=...)`."""
    return write_grid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three splits of burgers1d: 35, 14 and 7 samples."""
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, (split, num) in enumerate((("train", 5), ("val", 2), ("test", 1))):
        write_grid(folder / f"burgers1d_{split}.h5", num, seed=seed)
    return folder


@pytest.fixture
def mesh_root(tmp_path: Path) -> Path:
    """darcy2d_mesh, six small meshes without fields."""
    pytest.importorskip("torch_geometric")
    from gust_torch.data.graphs.synthetic import random_mesh

    folder = tmp_path / "meshes"
    folder.mkdir()
    write_stores(folder, "darcy2d_mesh", "mesh", [random_mesh(20 + i, i) for i in range(6)])
    return folder


@pytest.fixture
def particle_root(tmp_path: Path) -> Path:
    """particles_advect, six clouds at three times."""
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
    folder = tmp_path / "particles"
    folder.mkdir()
    write_stores(folder, "particles_advect", "particles", samples)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """`config(original=None)`: a configuration made tiny; by default one of grids."""

    def write(original: Path | None = None, name: str = "tiny.yaml", max_epochs: int = 1) -> Path:
        values = {} if original is None else yaml.safe_load(original.read_text())
        values["model"] = {"class_path": "gust_torch.LatentAutoencoderTask", "init_args": dict(TINY)}
        values.setdefault("data", {"batch_size": 8, "val_fraction": 0.2})
        values["best"] = {"monitor": "val/loss"}
        values["trainer"] = {"max_epochs": max_epochs, "enable_progress_bar": False, "log_every_n_steps": 1}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run(task, root, *flags)`: exit code, standard output and error; caches in tmp_path/cache."""

    def call(task: str, root: Path, *flags: object) -> tuple[int, str, str]:
        capfd.readouterr()
        fixed = ["--root", root, "--cache-dir", tmp_path / "cache", "--accelerator", "cpu", "--devices", "1"]
        try:
            code = main([str(part) for part in ("--tasks", *task.split(), *fixed, *flags)])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
