"""Windows of latents and of raw frames: the same ones in the same order, resumable, refused when stale."""

import logging
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader

from gust_torch.checkpoint import save_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.datamodule import LatentDataModule
from gust_torch.latents.dataset import FrameWindowDataset, LatentBatch, LatentDataset, collate_windows
from gust_torch.models.latent_autoencoder import LatentAutoencoder


@pytest.fixture
def encoder(tmp_path: Path, model: LatentAutoencoder) -> str:
    """Checkpoint of the autoencoder."""
    save_model(model, tmp_path / "encoder.ckpt")
    return str(tmp_path / "encoder.ckpt")


@torch.no_grad()
def encoded(model: LatentAutoencoder, batch: LatentBatch) -> torch.Tensor:
    """Latents of a batch of raw frames."""
    assert not batch.encoded
    return model.encode(batch.states.flatten(0, 1)).unflatten(0, batch.states.shape[:2])


@pytest.mark.parametrize(("n_steps", "stride"), [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_both_modes_give_the_same(
    root: Path, caches: Path, model: LatentAutoencoder, encoder: str, n_steps: int, stride: int, num_workers
) -> None:
    options = {"batch_size": 4, "n_steps": n_steps, "stride": stride, "seed": 3, "num_workers": num_workers}
    cached = LatentDataModule("burgers1d", str(root), str(caches), **options)
    raw = LatentDataModule("burgers1d", str(root), encoder=encoder, **options)
    assert cached.encoded
    assert not raw.encoded
    assert cached.spec == raw.spec
    for name in ("train_dataloader", "val_dataloader"):
        pairs = list(zip(getattr(cached, name)(), getattr(raw, name)(), strict=True))
        assert pairs
        for a, b in pairs:
            assert a.encoded
            assert a.states.shape[1:] == (n_steps, 3, 8)
            assert b.states.shape[1:] == (n_steps, 1, 16, 1)
            assert a.states.dtype == b.states.dtype == torch.float32
            # The composition of batches differs, and with it the rounding.
            torch.testing.assert_close(a.states, encoded(model, b), rtol=0, atol=1e-5)
            assert torch.equal(a.time_steps, b.time_steps)
            assert torch.equal(a.parameters, b.parameters)


def test_windows(root: Path, caches: Path) -> None:
    cache = LatentCache.open(caches / "burgers1d_train")
    windows = LatentDataset(cache, n_steps=3, stride=2)
    assert windows.rows.tolist() == [[i, i + 2, i + 4] for i in (0, 1, 6, 7, 8, 9, 10, 15)]
    item = windows[5]
    np.testing.assert_array_equal(item.states[0], cache.latents([9, 11, 13]))
    times = cache.times[[9, 11, 13]]
    np.testing.assert_array_equal(item.time_steps[0], np.diff(times).astype(np.float32))
    np.testing.assert_allclose(item.parameters, [[0.2, 2.0]])
    assert torch.equal(windows[-3].states, item.states)
    with pytest.raises(IndexError, match="out of bounds"):
        windows[8]
    raw = FrameWindowDataset(HDF5Dataset(root / "burgers1d_train.h5", n_steps=3, stride=2), "file")
    assert len(raw) == 8
    assert raw.parameter_names == ("nu", "rho")
    np.testing.assert_array_equal(raw.trajectories, windows.trajectories)


def test_batches_are_not_overwritten(caches: Path) -> None:
    windows = LatentDataset(LatentCache.open(caches / "burgers1d_train"))
    kept = [windows.__getitems__([i, i + 1])[0].states for i in range(10)]
    fresh = [torch.cat([windows[i].states, windows[i + 1].states]) for i in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(kept, fresh, strict=True))


def test_workers(caches: Path) -> None:
    windows = LatentDataset(LatentCache.open(caches / "burgers1d_train"))
    own = windows.__getitems__(range(len(windows)))[0]
    spawned = pickle.loads(pickle.dumps(windows))  # what a spawned worker gets
    for dataset in (windows, spawned):
        loader = DataLoader(dataset, batch_size=5, num_workers=1, collate_fn=collate_windows)
        assert torch.equal(torch.cat([batch.states for batch in loader]), own.states)


def test_a_batch_moves(caches: Path) -> None:
    batch = LatentDataset(LatentCache.open(caches / "burgers1d_train"))[0]
    moved = move_data_to_device(batch, torch.device("meta"))
    assert {moved.states.device.type, moved.time_steps.device.type, moved.parameters.device.type} == {"meta"}
    assert moved.encoded
    assert batch.states.device.type == "cpu"


def test_properties(root: Path, caches: Path, model: LatentAutoencoder) -> None:
    data = LatentDataModule("burgers1d", str(root), str(caches))
    data.setup("fit")
    train = data.dataset("train")
    assert train.parameter_names == ("nu", "rho")
    assert train.parameters.shape == (17, 2)
    assert train.time_steps.shape == (17, 1)
    assert not data.autoencoder.training
    assert not any(p.requires_grad for p in data.autoencoder.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(data.autoencoder.state_dict()[name], value)


def test_a_cache_without_its_data(root: Path, caches: Path, tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        data = LatentDataModule("burgers1d", str(tmp_path / "nowhere"), str(caches))
        data.setup("fit")
    assert "burgers1d_train is not there to compare" in caplog.text
    assert len(next(iter(data.train_dataloader())).states) == 17


@pytest.mark.parametrize("split", ["train", "val"])
def test_changed_data(root: Path, caches: Path, helpers, split: str) -> None:
    path = root / f"burgers1d_{split}.h5"
    path.unlink()
    helpers.write_task(path, (6, 9), seed=9)
    with pytest.raises(ValueError, match=rf"burgers1d_{split} is stale: the data file .* differs"):
        LatentDataModule("burgers1d", str(root), str(caches)).setup("fit")


def test_another_encoder(root: Path, caches: Path, encoder: str, helpers) -> None:
    LatentDataModule("burgers1d", str(root), str(caches), encoder).setup("fit")
    save_model(helpers.make_model(seed=1), encoder)
    with pytest.raises(ValueError, match="burgers1d_train is stale: the encoder differs"):
        LatentDataModule("burgers1d", str(root), str(caches), encoder).setup("fit")


def test_splits_of_different_encoders(root: Path, caches: Path, helpers) -> None:
    plan = helpers.make_plan(root / "burgers1d_val.h5", helpers.make_model(seed=1), split="val")
    helpers.make_cache(caches / "burgers1d_val", plan, overwrite=True)
    with pytest.raises(ValueError, match="made with different encoders"):
        LatentDataModule("burgers1d", str(root), str(caches)).setup("fit")


def test_splits_with_different_options_or_parameters(
    root: Path, caches: Path, encoder: str, helpers, model: LatentAutoencoder
) -> None:
    options = {"transform": "Smooth"}
    other = helpers.make_plan(root / "burgers1d_val.h5", model, split="val", options=options)
    helpers.make_cache(caches / "burgers1d_val", other, overwrite=True)
    with pytest.raises(ValueError, match="made with different options of the data"):
        LatentDataModule("burgers1d", str(root), str(caches)).setup("fit")
    with h5py.File(root / "burgers1d_val.h5", "r+") as file:
        del file["parameters/rho"]
    with pytest.raises(ValueError, match=r"_val are \['nu', 'rho'\] and \['nu'\]"):
        LatentDataModule("burgers1d", str(root), encoder=encoder).setup("fit")


def test_a_validation_cache_that_is_a_copy_of_the_training_cache(
    root: Path, caches: Path, encoder: str, helpers, model: LatentAutoencoder
) -> None:
    def refused(match: str) -> None:
        for folder in (root, root / "nowhere"):  # with and without the data at hand
            with pytest.raises(ValueError, match=match):
                LatentDataModule("burgers1d", str(folder), str(caches)).setup("fit")

    val = caches / "burgers1d_val"
    shutil.rmtree(val)
    shutil.copytree(caches / "burgers1d_train", val)
    refused("burgers1d_val holds burgers1d_train")
    # The same file twice.
    path = root / "burgers1d_val.h5"
    shutil.copy(root / "burgers1d_train.h5", path)
    shutil.rmtree(val)
    helpers.make_cache(val, helpers.make_plan(path, model, split="val"), overwrite=True)
    refused(r"burgers1d_train and .*burgers1d_val .*hold the same data")
    with pytest.raises(ValueError, match="hold the same data"):
        LatentDataModule("burgers1d", str(root), encoder=encoder).setup("fit")
    # The same frames in another file, or a part of them.
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["note"] = "a copy"
    for limit in (None, 9):
        plan = helpers.make_plan(path, model, split="val", limit=limit)
        helpers.make_cache(val, plan, overwrite=True)
        refused(r"burgers1d_val \(\d+% of its samples\) hold the same data")
    with pytest.raises(ValueError, match="hold the same data"):
        LatentDataModule("burgers1d", str(root), encoder=encoder).setup("fit")


def test_an_exchanged_encoder_checkpoint(root: Path, caches: Path, helpers) -> None:
    save_model(helpers.make_model(seed=1), caches / "burgers1d_train" / "encoder.ckpt")
    with pytest.raises(ValueError, match=r"is damaged: encoder\.ckpt is not its encoder"):
        LatentDataModule("burgers1d", str(root), str(caches)).setup("fit")


def test_refusals(root: Path, caches: Path, encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.latent_cache_dir.*data\.encoder"):
        LatentDataModule("burgers1d")
    for options in ({"batch_size": 0}, {"num_workers": -1}, {"block_size": 0}, {"n_steps": 0}, {"stride": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LatentDataModule("burgers1d", str(root), str(caches), **options)
    with pytest.raises(ValueError, match=r"no .*advection1d_train\.h5 \(or \.zarr\); convert"):
        LatentDataModule("advection1d", str(root), encoder=encoder).setup("fit")
    with pytest.raises(ValueError, match="no latent cache at"):
        LatentDataModule("advection1d", str(root), str(caches)).setup("fit")
    (root / "darcy2d_mesh_train.zarr").mkdir()
    with pytest.raises(ValueError, match="graphs, which are not encoded on the fly; make caches"):
        LatentDataModule("darcy2d_mesh", str(root), encoder=encoder).setup("fit")
    with pytest.raises(ValueError, match="longest trajectory in the range has 9"):
        LatentDataModule("burgers1d", str(root), str(caches), n_steps=10).setup("fit")


@pytest.mark.parametrize(
    ("array", "value", "match"),
    [
        ("times", np.nan, "do not increase"),
        ("times", -1.0, "do not increase"),
        ("nu", np.inf, "nu holds NaN"),
    ],
)
def test_times_and_parameters_that_make_no_sense(caches: Path, array: str, value: float, match: str) -> None:
    cache = LatentCache.open(caches / "burgers1d_train")
    changed = cache.times if array == "times" else cache.parameters[array]
    changed[2] = value
    with pytest.raises(ValueError, match=match):
        LatentDataset(cache)


def test_ranks_share_the_windows(root: Path, caches: Path) -> None:
    data = LatentDataModule("burgers1d", str(root), str(caches), batch_size=4)

    class Rank:
        world_size, current_epoch, overfit_batches = 2, 1, 0

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    seen = []
    for rank in range(2):
        data.trainer = Rank(rank)  # type: ignore[assignment]
        seen.append([tuple(batch.states.flatten(1)[:, 0].tolist()) for batch in data.train_dataloader()])
    assert [len(batches) for batches in seen] == [2, 2]
    assert not {x for batch in seen[0] for x in batch} & {x for batch in seen[1] for x in batch}
