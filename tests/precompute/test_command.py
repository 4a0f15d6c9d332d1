"""What the command makes of data and encoders, and what it refuses."""

import errno
import os
import shutil

import numpy as np
import pytest
import torch

from gust_torch.checkpoint import load_model, model_digest, save_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents import key
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.precompute import pipeline
from gust_torch.spec import FieldSpec


def snapshot(folder):
    """Content of every array in a cache."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


@pytest.fixture
def encode(run, root, config):
    """`encode(*flags)` on burgers1d with an untrained, tiny encoder."""
    path = config()
    return lambda *flags: run("burgers1d", root, "--untrained", "--config", path, *flags)


@pytest.fixture
def checkpoint(root, tmp_path):
    """Return an autoencoder for the data."""
    dataset = HDF5Dataset(root / "burgers1d_train.h5")
    torch.manual_seed(3)
    sizes = {"latent_len": 4, "latent_dim": 8, "width": 16, "num_layers": 1, "num_heads": 2}
    model = LatentAutoencoder(dataset.spec, **sizes)
    model.set_statistics(*dataset.statistics())
    save_model(model, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_latents_are_those_of_the_encoder(encode, root, tmp_path):
    code, out, err = encode("--batch-size", 4, "--num-workers", 1, "--pin-memory")
    assert code == 0, err
    assert [line.split()[0].rsplit("/")[-1] for line in out.splitlines()] == [
        "burgers1d_train",
        "burgers1d_val",
        "burgers1d_test",
    ]
    assert "35 samples of 4x8 float32" in out
    assert "new" in out
    for split, num in (("train", 35), ("val", 14), ("test", 7)):
        cache = LatentCache.open(tmp_path / "cache" / f"burgers1d_{split}")
        model = load_model(cache.folder / "encoder.ckpt", LatentAutoencoder)
        dataset = HDF5Dataset(root / f"burgers1d_{split}.h5")
        with torch.inference_mode():
            batches = [range(start, min(start + 4, num)) for start in range(0, num, 4)]
            expected = [model.encode(torch.stack(dataset.__getitems__(batch))) for batch in batches]
        np.testing.assert_array_equal(cache.latents(range(num)), torch.cat(expected).numpy())
        np.testing.assert_array_equal(cache.trajectories, dataset.trajectories)
        np.testing.assert_array_equal(cache.times, dataset.times)


def test_splits_share_an_untrained_encoder_whatever_was_drawn_before(encode, root, tmp_path):
    assert encode()[0] == 0
    folders = [tmp_path / "cache" / f"burgers1d_{split}" for split in ("train", "val", "test")]
    digests = {LatentCache.open(folder).key.encoder for folder in folders}
    assert len(digests) == 1
    model = load_model(folders[0] / "encoder.ckpt", LatentAutoencoder)
    torch.testing.assert_close(model.mean, HDF5Dataset(root / "burgers1d_train.h5").mean.flatten())
    shutil.rmtree(tmp_path / "cache")
    state = torch.random.get_rng_state()
    torch.rand(5)
    assert encode("--splits", "val")[0] == 0
    assert LatentCache.open(folders[1]).key.encoder in digests
    torch.random.set_rng_state(state)
    shutil.rmtree(tmp_path / "cache")
    assert encode("--splits", "val", "--seed", 1)[0] == 0
    assert LatentCache.open(folders[1]).key.encoder not in digests


def test_a_second_run_neither_hashes_nor_encodes(encode, tmp_path, monkeypatch):
    assert encode()[0] == 0
    before = snapshot(tmp_path / "cache" / "burgers1d_train")

    def forbidden(*args, **kwargs):
        raise AssertionError("work was done")

    monkeypatch.setattr(key, "_hash", forbidden)
    monkeypatch.setattr(pipeline, "encode", forbidden)
    code, out, _ = encode()
    assert code == 0
    assert out.count("up to date") == 3
    assert encode("--overwrite")[1].count("up to date") == 3  # nothing is stale
    assert snapshot(tmp_path / "cache" / "burgers1d_train") == before


def test_touched_data_with_the_same_content_are_not_stale(encode, root):
    assert encode()[0] == 0
    (root / "burgers1d_val.h5").touch()
    assert encode()[1].count("up to date") == 3


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--seed", "5"], "encoder: "),
        (["--latent-len", "2"], "config.architecture.latent_len: 4 there, 2 now"),
        (["--dtype", "float16"], "dtype: float32 there, float16 now"),
        (["--limit", "3"], "num_samples: 35 there, 3 now"),
    ],
)
def test_a_stale_cache_is_refused_and_replaced_on_demand(encode, tmp_path, flags, reason):
    folder = tmp_path / "cache" / "burgers1d_train"
    assert encode()[0] == 0
    before = snapshot(folder)
    code, out, err = encode(*flags)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert f"{folder} is stale: " in err
    assert reason in err
    assert "--overwrite" in err
    assert snapshot(folder) == before
    assert encode(*flags, "--overwrite")[1].count("new") == 3
    assert snapshot(folder) != before
    assert encode(*flags)[1].count("up to date") == 3


def test_changed_data_make_a_cache_stale(encode, root, write_grid):
    assert encode()[0] == 0
    (root / "burgers1d_val.h5").unlink()
    write_grid(root / "burgers1d_val.h5", 2, seed=9)
    code, _, err = encode()
    assert code == 1
    assert "burgers1d_val is stale: data: " in err
    out = encode("--overwrite")[1]
    assert out.count("up to date") == 2
    assert out.count("new") == 1


def test_a_damaged_cache_is_refused_and_replaced_on_demand(encode, tmp_path):
    assert encode()[0] == 0
    latents = tmp_path / "cache" / "burgers1d_train" / "latents.npy"
    before = latents.read_bytes()
    latents.write_bytes(before[:-9])
    code, _, err = encode()
    assert code == 1
    assert "is damaged" in err
    assert encode("--overwrite")[0] == 0
    assert latents.read_bytes() == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_stopped_run_goes_on_behind_the_finished_batches(encode, tmp_path, monkeypatch, stop):
    assert encode("--batch-size", 4)[0] == 0
    folder = tmp_path / "cache" / "burgers1d_train"
    expected = snapshot(folder)
    shutil.rmtree(tmp_path / "cache")
    write = CacheWriter.write
    written = []

    def write_until(self, start, latents):
        if start == 12:
            raise stop("stopped")
        written.append((self.folder.name, start))
        write(self, start, latents)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "write", write_until)
        code, out, _ = encode("--batch-size", 4)
    assert code == (130 if stop is KeyboardInterrupt else 1)
    assert out == ""
    assert not folder.exists()
    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "write", lambda *given: (written.append(given[1]), write(*given)))
        assert encode("--batch-size", 4, "--splits", "train")[0] == 0
    assert written == [*(("burgers1d_train", start) for start in (0, 4, 8)), 12, 16, 20, 24, 28, 32]
    assert snapshot(folder) == expected


def test_verify_reads_every_byte_and_needs_neither_data_nor_encoder(encode, run, tmp_path):
    assert encode()[0] == 0
    flags = ["--verify", "--splits", "train", "val"]
    code, out, err = run("burgers1d", tmp_path / "nowhere", *flags)
    assert (code, err) == (0, "")
    assert [line.split()[1:4] for line in out.splitlines()] == [
        ["35", "samples", "verified,"],
        ["14", "samples", "verified,"],
    ]
    latents = tmp_path / "cache" / "burgers1d_train" / "latents.npy"
    content = bytearray(latents.read_bytes())
    content[-1] ^= 64
    latents.write_bytes(content)
    assert encode()[1].count("up to date") == 3  # nobody has read that sample yet
    code, out, err = run("burgers1d", tmp_path / "nowhere", *flags)
    assert code == 1
    assert out.startswith(str(tmp_path / "cache" / "burgers1d_val"))
    assert "burgers1d_train is damaged: sample 34 of latents.npy" in err
    assert len(err.splitlines()) == 1
    assert encode("--overwrite")[1].count("new") == 1  # the remedy
    assert run("burgers1d", tmp_path / "nowhere", *flags)[0] == 0
    assert "no latent cache at" in run("advection1d", tmp_path, "--verify")[2]
    assert "leave --overwrite out" in run("burgers1d", tmp_path, "--verify", "--overwrite")[2]


def test_two_splits_of_the_same_data_are_refused(encode, root, tmp_path):
    shutil.copy(root / "burgers1d_train.h5", root / "burgers1d_val.h5")
    code, out, err = encode()
    assert (code, out) == (1, "")
    assert "burgers1d_train.h5 and" in err
    assert "burgers1d_val.h5 hold the same data" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_told_before_anything_is_encoded(encode, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    code, out, err = encode()
    assert (code, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/cache/.burgers1d_train.part/latents.npy: no space left on device; "
        "make room on the disk\n"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unfinished_cache_of_another_request_is_refused_and_replaced_on_demand(encode, monkeypatch):
    def full(*args):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode", full)
        assert encode("--splits", "val")[0] == 1
    code, _, err = encode("--splits", "val", "--batch-size", 4)
    assert code == 1
    assert ".burgers1d_val.part is of another request (batch_size: 32 there, 4 now)" in err
    assert encode("--splits", "val", "--batch-size", 4, "--overwrite")[0] == 0


def test_limit_and_float16(encode, tmp_path):
    code, out, err = encode("--limit", 9, "--dtype", "float16")
    assert code == 0, err
    assert "9 samples of 4x8 float16" in out
    assert "7 samples of 4x8 float16" in out  # the test split has no more
    assert len(LatentCache.open(tmp_path / "cache" / "burgers1d_train")) == 9


def test_a_checkpoint_encodes_several_tasks(run, root, checkpoint, tmp_path, write_grid):
    for split in ("train", "val"):
        write_grid(root / f"advection1d_{split}.h5", 2, seed=7)
    flags = ["--checkpoint", checkpoint, "--splits", "val", "--latent-len", 4, "--latent-dim", 8]
    code, out, err = run("burgers1d advection1d", root, *flags)
    assert code == 0, err
    assert len(out.splitlines()) == 2
    digest = model_digest(load_model(checkpoint, LatentAutoencoder))
    for task in ("burgers1d", "advection1d"):
        assert LatentCache.open(tmp_path / "cache" / f"{task}_val").key.encoder == digest


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--latent-dim", "16"], "has latent-dim 8, asked for was --latent-dim 16"),
        (["--untrained"], "--checkpoint and --untrained exclude each other"),
        (["--splits", "train", "train"], "each once"),
        (["--splits", "dev"], "unknown split 'dev'"),
        (["--tasks", "../root/burgers1d"], "no name of a data set"),
        (["--limit", "0"], "--limit >= 1"),
        (["--batch-size", "0"], "--batch-size >= 1"),
        (["--strategy", "ddp_spawn"], "give auto or ddp"),
        (["--devices", "many"], "change --devices"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--checkpoint", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
    ],
)
def test_mistakes_end_with_one_line(run, root, checkpoint, tmp_path, flags, message):
    code, out, err = run("burgers1d", root, "--checkpoint", checkpoint, *flags)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tmp_path / "cache").exists()


def test_checkpoints_of_other_models_and_other_grids_are_refused(run, root, checkpoint, tmp_path, write_grid):
    spec = FieldSpec(names=("u",), grid=(16, 16))
    vqvae = VQVAE2d(spec, base_channels=8, channel_mult=(1, 1), num_res_blocks=1, scales=((1, 1), (4, 4)))
    save_model(vqvae, tmp_path / "vqvae.ckpt")
    _, _, err = run("burgers1d", root, "--checkpoint", tmp_path / "vqvae.ckpt")
    assert "holds a VQVAE2d, expected a LatentAutoencoder" in err
    (root / "burgers1d_val.h5").unlink()
    write_grid(root / "burgers1d_val.h5", 2, seed=0, points=64)
    code, _, err = run("burgers1d", root, "--checkpoint", checkpoint)
    assert code == 1
    assert "grid 32x1, got 64x1" in err
    assert not (tmp_path / "cache").exists()  # before the train split, which would do, was begun


def test_missing_files_are_named_before_any_work(run, root, config, checkpoint, tmp_path):
    (root / "burgers1d_test.h5").unlink()
    flags = ["--untrained", "--config", config()]
    code, _, err = run("burgers1d", root, *flags)
    assert code == 1
    assert "missing" in err
    assert "burgers1d_test.h5" in err
    assert "leave splits out by --splits" in err
    code, _, err = run("burgers1d advection1d", root, *flags)
    assert all(name in err for name in ("burgers1d_test.h5", "advection1d_train.h5", "advection1d_val.h5"))
    assert "convert (scripts/convert_pdebench_multimodal.py)" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "cache").exists()
    (root / "burgers1d_train.h5").unlink()
    _, _, err = run("burgers1d", root, *flags, "--splits", "val")
    assert "burgers1d_train.h5; " in err
    assert "give --checkpoint" in err
    assert run("burgers1d", root, "--checkpoint", checkpoint, "--splits", "val")[0] == 0
