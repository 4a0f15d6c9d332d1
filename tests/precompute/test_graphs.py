"""Meshes, whose fields a transform of the configuration makes, and moving particles."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gust_torch.checkpoint import load_model
from gust_torch.latents.cache import LatentCache
from gust_torch.models.latent_autoencoder import LatentAutoencoder

CONFIGS = Path(__file__).parents[2] / "configs" / "autoencoder"


def test_meshes_through_training(run, mesh_root, config, tmp_path):
    flags = ["--config", config(CONFIGS / "darcy2d_mesh.yaml"), "--batch-size", 3]
    code, out, err = run("darcy2d_mesh", mesh_root, *flags)
    assert code == 0, err
    assert "4 samples of 4x8 float32" in out
    cache = LatentCache.open(tmp_path / "cache" / "darcy2d_mesh_train")
    assert cache.index.spec.names == ("f", "u")
    model = load_model(cache.folder / "encoder.ckpt", LatentAutoencoder)
    assert bool((model.std != 1).any())
    np.testing.assert_array_equal(cache.trajectories, range(4))
    assert run("darcy2d_mesh", mesh_root, *flags)[1].count("up to date") == 3


def test_the_transform_is_part_of_the_key(run, mesh_root, config, tmp_path):
    path = config(CONFIGS / "darcy2d_mesh.yaml")
    flags = ["--config", path, "--splits", "val"]
    assert run("darcy2d_mesh", mesh_root, *flags)[0] == 0
    encoder = tmp_path / "cache" / "darcy2d_mesh_autoencoder" / "checkpoints" / "best.ckpt"
    values = yaml.safe_load(path.read_text())
    del values["data"]["init_args"]["transform"]["init_args"]["seed"]  # 0 is the default
    path.write_text(yaml.safe_dump(values))
    given = [*flags, "--checkpoint", encoder]
    assert "up to date" in run("darcy2d_mesh", mesh_root, *given)[1]
    values["data"]["init_args"]["transform"]["init_args"]["seed"] = 1
    path.write_text(yaml.safe_dump(values))
    code, _, err = run("darcy2d_mesh", mesh_root, *given)
    assert code == 1
    assert "is stale: config.data.transform" in err
    values["data"]["init_args"]["transform"] = None
    path.write_text(yaml.safe_dump(values))
    assert "no node field f, u in the items" in run("darcy2d_mesh", mesh_root, *given)[2]


def test_particles_have_a_sample_for_each_time(run, particle_root, config, tmp_path):
    flags = ["--config", config(CONFIGS / "particles_advect.yaml"), "--untrained"]
    code, out, err = run("particles_advect", particle_root, *flags, "--limit", 4, "--batch-size", 4)
    assert code == 0, err
    assert "6 samples of 4x8 float32" in out  # the two trajectories that hold the first four samples
    cache = LatentCache.open(tmp_path / "cache" / "particles_advect_train")
    np.testing.assert_array_equal(cache.trajectories, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(cache.times, [0, 1, 2, 0, 1, 2])
    model = load_model(cache.folder / "encoder.ckpt", LatentAutoencoder)
    from gust_torch.data.graphs.datasets import ParticleZarrDataset

    store = ParticleZarrDataset(particle_root / "particles_advect_train.zarr")
    with torch.inference_mode():
        expected = torch.cat([model.encode(store[i]) for i in (0, 1)])
    # Alone in a batch, sums are rounded in another order.
    torch.testing.assert_close(torch.from_numpy(cache.latents(range(6))), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("wrong", ["grid", "fields"])
def test_an_encoder_of_other_data_is_refused(run, root, particle_root, config, tmp_path, wrong):
    particles = config(CONFIGS / "particles_advect.yaml", name="particles.yaml")
    if wrong == "grid":
        assert run("burgers1d", root, "--config", config(), "--untrained", "--splits", "val")[0] == 0
        encoder = tmp_path / "cache" / "burgers1d_val" / "encoder.ckpt"
        flags = ["--config", particles, "--checkpoint", encoder]
        code, _, err = run("particles_advect", particle_root, *flags)
        assert "holds graphs, the autoencoder was trained on grids" in err
    else:
        assert run("particles_advect", particle_root, "--config", particles, "--untrained")[0] == 0
        encoder = tmp_path / "cache" / "particles_advect_val" / "encoder.ckpt"
        code, _, err = run("burgers1d", root, "--checkpoint", encoder)
        assert "holds grids, the autoencoder was trained on graphs" in err
    assert code == 1


def test_a_training_on_graphs_needs_a_store_that_validates(run, mesh_root, config):
    (mesh_root / "darcy2d_mesh_val.zarr").rename(mesh_root / "away.zarr")
    flags = ["--config", config(CONFIGS / "darcy2d_mesh.yaml"), "--splits", "train"]
    code, _, err = run("darcy2d_mesh", mesh_root, *flags)
    assert code == 1
    assert "darcy2d_mesh_val.zarr; " in err
    assert "give --checkpoint" in err
