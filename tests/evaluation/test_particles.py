"""Rollouts of moving particles, decoded where the particles truly are; steady meshes are refused."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gust_torch.checkpoint import save_model
from gust_torch.evaluation.command import main
from gust_torch.graph_spec import GraphSpec

if not all(map(find_spec, ("zarr", "fsspec", "torch_geometric"))):
    pytest.skip("without the extra `graphs`", allow_module_level=True)

SPEC = GraphSpec(("velocities",), (2,), num_dims=2, moving=True)
TIMES = 5


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three sets of particles on a line of neighbors, of 12, 7 and 9 particles."""
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import PARTICLES

    rng = np.random.default_rng(0)
    path = tmp_path / "particles_advect_test.zarr"
    with RaggedWriter(path, PARTICLES) as writer:
        for seed, n in enumerate((12, 7, 9)):
            edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1).astype(np.int32)
            both = np.concatenate([edges, edges[:, ::-1]])
            both = both[np.lexsort(both.T[::-1])]
            velocities = rng.standard_normal((1, n, 2)) + 0.3 * rng.standard_normal((TIMES, n, 2))
            arrays = {
                "positions": (rng.random((1, n, 2)) + np.cumsum(0.1 * velocities, 0)).astype(np.float32),
                "velocities": velocities.astype(np.float32),
                "indices": both[:, 1].astype(np.int32),
                "indptr": np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=n))]).astype(
                    np.int32
                ),
                "edges": edges,
                "dt": np.float64(0.1),
                "nu": np.float64(1.0 + seed),
            }
            writer.append(arrays, source=f"shard_{seed}.npz")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, lab: Any) -> Path:
    """Return a tiny operator of such particles."""
    save_model(lab.tiny_operator(SPEC), tmp_path / "particles.ckpt")
    return tmp_path / "particles.ckpt"


def run(checkpoint: Path, data: Path, output: Path, *flags: str) -> int:
    required = ["--checkpoint", str(checkpoint), "--data_path", str(data), "--output_dir", str(output)]
    return main([*required, "--accelerator", "cpu", *flags])


def test_particles(checkpoint: Path, store: Path, tmp_path: Path) -> None:
    from gust_torch.data.graphs.datasets import ParticleZarrDataset

    assert run(checkpoint, store, tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["leads"]["times"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert list(metrics["fields"]) == ["velocities_x", "velocities_y"]
    # Persistence: every particle keeps its velocity.
    dataset = ParticleZarrDataset(store)
    for channel, name in enumerate(metrics["fields"]):
        expected = np.zeros((len(dataset), TIMES - 1))
        for i in range(len(dataset)):
            v = dataset[i].velocities[:, :, channel].numpy()
            expected[i] = [
                np.sqrt(((v[:, 0] - v[:, t]) ** 2).mean() / (v[:, t] ** 2).mean()) for t in range(1, TIMES)
            ]
        found = metrics["fields"][name]["nrmse"]["persistence"]["mean"]
        assert found == pytest.approx(expected.mean(0), rel=1e-5)


def test_the_floor_is_the_reconstruction_and_batches_do_not_matter(store: Path, lab: Any) -> None:
    from torch_geometric.data import Batch

    from gust_torch.data.graphs.datasets import ParticleZarrDataset
    from gust_torch.metrics.errors import sample_means

    operator = lab.tiny_operator(SPEC)
    one, three = (lab.run_evaluation(operator, store, batch_size=size, start=1).scores for size in (1, 3))
    for channel in (0, 1):
        for curve in ("operator", "autoencoder"):
            means = [scores.statistics(curve, "nrmse", channel).mean for scores in (one, three)]
            np.testing.assert_allclose(means[0], means[1], rtol=1e-4)

    batch = Batch.from_data_list(list(ParticleZarrDataset(store)))  # type: ignore[arg-type]
    with torch.no_grad():
        points = operator.autoencoder.points(batch)
        estimate = operator.autoencoder.reconstruct(batch)
        squares = [(estimate - points.values).square(), points.values.square()]
        means = [sample_means(values, points.sample, points.num_samples) for values in squares]
        errors = (means[0] / means[1]).sqrt()
    expected = errors.reshape(3, TIMES, 2)[:, 2:].mean(0)  # from frame 1: leads are frames 2, 3, 4
    for channel in (0, 1):
        floor = one.statistics("autoencoder", "nrmse", channel).mean[:-1]
        np.testing.assert_allclose(floor, expected[:, channel], rtol=1e-4)


@pytest.mark.parametrize("what", ["steady operator", "mesh store", "no store", "grid", "grid operator"])
def test_data_that_do_not_fit_are_refused(
    what: str,
    checkpoint: Path,
    checkpoints: dict[str, Path],
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lab: Any,
) -> None:
    from gust_torch.data.graphs.ragged import RaggedWriter
    from gust_torch.data.graphs.schema import MESH
    from gust_torch.data.graphs.synthetic import random_mesh

    meshes = tmp_path / "darcy2d_mesh_test.zarr"
    with RaggedWriter(meshes, MESH) as writer:
        writer.append(random_mesh(9, 0), source="mesh.npz")
    steady = GraphSpec(("u",), (1,), num_dims=2)
    save_model(lab.tiny_operator(steady, ()), tmp_path / "steady.ckpt")
    used, data, message = {
        "steady operator": (tmp_path / "steady.ckpt", meshes, "fields are steady"),
        "mesh store": (checkpoint, meshes, "holds meshes, whose fields are steady"),
        "grid": (checkpoint, lab.write_waves("line", (3,)), "holds grids"),
        "no store": (checkpoint, tmp_path / "missing.zarr", "no such Zarr store"),
        "grid operator": (checkpoints["line"], store, "is a store of graphs"),
    }[what]
    assert run(used, data, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
