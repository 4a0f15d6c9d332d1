"""Reading caches: the right latents in any order and process; nothing stale or damaged."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gust_torch.checkpoint import load_model, model_digest
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.cache import LatentCache, _digest
from gust_torch.models.latent_autoencoder import LatentAutoencoder


@pytest.fixture
def cache(caches: Path) -> LatentCache:
    """Return that of the training split."""
    return LatentCache.open(caches / "burgers1d_train")


@pytest.fixture
def expected(root: Path, model: LatentAutoencoder) -> np.ndarray:
    """Its latents."""
    frames = torch.stack(list(HDF5Dataset(root / "burgers1d_train.h5")))
    with torch.no_grad():
        return model.encode(frames).numpy()


def test_rows_in_any_order(cache: LatentCache, expected: np.ndarray) -> None:
    for rows in (range(20), [19, 0, 7, 8, 9, 9, 3], [5], np.arange(20)[::-1]):
        np.testing.assert_allclose(cache.latents(rows), expected[np.asarray(rows)], rtol=0, atol=1e-5)
    assert cache.latents([]).shape == (0, 3, 8)
    for row in (-1, 20):
        with pytest.raises(IndexError, match="of 20"):
            cache.latents([0, row])


def test_a_copy_is_handed_out(cache: LatentCache) -> None:
    first = cache.latents([0])
    first[:] = 0
    assert cache.latents([0]).any()


def test_what_belongs_to_the_latents(cache: LatentCache, root: Path, model: LatentAutoencoder) -> None:
    data = HDF5Dataset(root / "burgers1d_train.h5")
    np.testing.assert_array_equal(cache.trajectories, data.trajectories)
    np.testing.assert_array_equal(cache.times, data.times)
    assert list(cache.parameters) == ["nu", "rho"]
    np.testing.assert_allclose(cache.parameters["nu"], [0.1, 0.2, 0.3])
    assert cache.index.spec == data.spec
    assert (cache.index.task, cache.index.split, cache.index.device) == ("burgers1d", "train", "cpu")
    assert set(cache.index.provenance) == {"package_version", "git_commit"}
    assert model_digest(load_model(cache.folder / "encoder.ckpt", LatentAutoencoder)) == cache.key.encoder


def test_float16_is_cast(root: Path, model: LatentAutoencoder, helpers, tmp_path: Path, expected) -> None:
    plan = helpers.make_plan(root / "burgers1d_train.h5", model, dtype="float16")
    folder = helpers.make_cache(tmp_path / "half", plan)
    latents = LatentCache.open(folder).latents([3, 1])
    assert latents.dtype == np.float32
    # Rounding to 11 bits, of values up to 4.
    np.testing.assert_allclose(latents, expected[[3, 1]], rtol=2**-11, atol=1e-4)


def test_copies_for_other_processes(cache: LatentCache) -> None:
    text = pickle.dumps(cache)
    assert len(text) < 5000 + 20 * 16  # the latents stay on the disk
    np.testing.assert_array_equal(pickle.loads(text).latents([8, 3]), cache.latents([8, 3]))


def test_a_moved_cache_stands_alone(cache: LatentCache, tmp_path: Path) -> None:
    shutil.copytree(cache.folder, tmp_path / "elsewhere")
    moved = LatentCache.open(tmp_path / "elsewhere")
    np.testing.assert_array_equal(moved.latents(range(20)), cache.latents(range(20)))


def test_nothing_is_written(cache: LatentCache, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.folder.parent.rglob("*")}
    (root / "burgers1d_train.h5").touch()
    LatentCache.open(cache.folder).check_fresh(data_path=root / "burgers1d_train.h5")
    assert {path: path.stat().st_mtime_ns for path in cache.folder.parent.rglob("*")} == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x93garbage" * 20)


def other_dtype(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int32))


def other_shape(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("damage", [Path.unlink, truncate, garbage, other_dtype, other_shape])
@pytest.mark.parametrize(
    "name", ["latents.npy", "checksums.npy", "trajectory.npy", "time.npy", "parameters.npy"]
)
def test_damaged_arrays(caches: Path, name: str, damage: Callable[[Path], None]) -> None:
    folder = caches / "burgers1d_train"
    damage(folder / name)
    with pytest.raises(ValueError, match=rf"burgers1d_train is damaged: {name}.*--overwrite") as caught:
        LatentCache.open(folder)
    assert "\n" not in str(caught.value)


def test_a_bit_flip_is_told_when_its_sample_is_first_read(cache: LatentCache) -> None:
    path = cache.folder / "latents.npy"
    assert cache.latents([7]).any()
    content = bytearray(path.read_bytes())
    content[-7 * 3 * 8 * 4] ^= 1  # of sample 13
    path.write_bytes(content)
    flipped = LatentCache.open(cache.folder)
    flipped.latents([12, 14])
    for read in (lambda: flipped.latents([12, 13]), flipped.verify, cache.verify):
        with pytest.raises(ValueError, match=r"is damaged: sample 13 of latents\.npy .*--overwrite"):
            read()


@pytest.mark.parametrize("name", ["checksums.npy", "trajectory.npy", "time.npy", "parameters.npy"])
def test_a_bit_flip_beside_the_latents(caches: Path, name: str) -> None:
    path = caches / "burgers1d_train" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not what was written"):
        LatentCache.open(path.parent)


def test_verifying_reads_everything(cache: LatentCache) -> None:
    cache.verify()
    content = bytearray((cache.folder / "encoder.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (cache.folder / "encoder.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"encoder\.ckpt is not what was written"):
        cache.verify()


def test_no_encoder(caches: Path) -> None:
    (caches / "burgers1d_train" / "encoder.ckpt").unlink()
    with pytest.raises(ValueError, match=r"encoder\.ckpt is missing"):
        LatentCache.open(caches / "burgers1d_train")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 1}, "format version 1, this version reads 2"),
        ({"format_version": None}, "format version None"),
        ({"latent_len": 10**12}, "digest differs"),
        ({"latent_dim": float("nan")}, "not JSON compliant"),
        ({"key": {}}, "digest differs"),
        ({"parameter_names": None}, "digest differs"),
        ({"surprise": 1}, "digest differs"),
        ({"digest": None}, "digest differs"),
    ],
)
def test_a_changed_index(caches: Path, change: dict, match: str) -> None:
    path = caches / "burgers1d_train" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"index\.json cannot be used: .*{match}.*--overwrite"):
        LatentCache.open(path.parent)


def with_digest(path: Path, change: dict, key: dict) -> None:
    """Change an index and make it look as if it had been written so."""
    values = json.loads(path.read_text()) | change
    values["key"] |= key
    del values["digest"]
    path.write_text(json.dumps({**values, "digest": _digest(values)}))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"latent_len": 10**12}, {}),
        ({"latent_len": -1}, {}),
        ({"latent_dim": "8"}, {}),
        ({"latent_dim": 0}, {}),
        ({"num_trajectories": 10**15}, {}),
        ({"num_trajectories": None}, {}),
        ({"parameter_names": None}, {}),
        ({"parameter_names": ["nu"]}, {}),
        ({"sha256": {}}, {}),
        ({"sha256": []}, {}),
        ({"data": {}}, {}),
        ({"data": None}, {}),
        ({}, {"num_samples": 10**12}),
        ({}, {"num_samples": 0}),
        ({}, {"num_samples": "20"}),
        ({}, {"dtype": "object"}),
        ({}, {"dtype": None}),
        ({}, {"config": {}}),
        ({}, {"config": {"spec": {"grid": 3}}}),
        ({}, {"data": "0" * 64}),
        ({}, {"surprise": 1}),
    ],
)
def test_an_index_that_makes_no_sense(caches: Path, change: dict, key: dict) -> None:
    folder = caches / "burgers1d_train"
    with_digest(folder / "index.json", change, key)
    with pytest.raises(ValueError, match=r"burgers1d_train.* --overwrite") as caught:
        LatentCache.open(folder)
    assert "\n" not in str(caught.value)


def test_things_that_are_no_files(caches: Path) -> None:
    folder = caches / "burgers1d_train"
    for name in ("latents.npy", "time.npy", "encoder.ckpt", "index.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        for put in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)):
            put(folder / name)
            with pytest.raises(ValueError, match=r"is missing|no latent cache"):
                LatentCache.open(folder)
            (folder / name).rmdir() if put is Path.mkdir else (folder / name).unlink()
        (folder / name).write_bytes(content)
    LatentCache.open(folder)


def test_any_damage_is_told_in_one_line_or_changes_nothing(cache: LatentCache, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected = cache.latents(range(20))
    names = sorted(path.name for path in cache.folder.iterdir())
    for attempt in range(200):
        name = names[attempt % len(names)]
        folder = tmp_path / f"attempt_{attempt}"
        shutil.copytree(cache.folder, folder)
        content = bytearray((folder / name).read_bytes())
        start = int(rng.integers(len(content)))
        stop = start + int(rng.integers(1, 40))
        match rng.integers(5):
            case 0:
                content[start] ^= 1 << int(rng.integers(8))
            case 1:
                del content[start:]
            case 2:
                content[start:stop] = rng.bytes(stop - start)
            case 3:
                content[start:start] = rng.bytes(8)
            case _:
                content[start:stop] = b"9" * (stop - start)
        (folder / name).write_bytes(content)
        message = ""
        try:
            damaged = LatentCache.open(folder)
            np.testing.assert_array_equal(damaged.latents(range(20)), expected)
            np.testing.assert_array_equal(damaged.times, cache.times)
            damaged.verify()
        except ValueError as error:
            message = str(error)
        if message:
            assert folder.name in message
            assert "\n" not in message
        else:  # spaces in the header of the latents
            assert content == (cache.folder / name).read_bytes() or name == "latents.npy"


@pytest.mark.parametrize("content", ["", "[1]", "{", "{}", "\x00\xff", "[" * 100_000])
def test_an_index_that_is_none(caches: Path, content: str) -> None:
    path = caches / "burgers1d_train" / "index.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"index\.json cannot be used"):
        LatentCache.open(path.parent)


def test_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no latent cache at .*scripts/precompute_latent_cache\.py"):
        LatentCache.open(tmp_path / "burgers1d_train")


def test_stale_caches(cache: LatentCache, root: Path, helpers) -> None:
    path = root / "burgers1d_train.h5"
    cache.check_fresh(data_path=path, encoder_digest=cache.key.encoder)
    with pytest.raises(ValueError, match=r"is stale: the encoder differs .*--overwrite"):
        cache.check_fresh(encoder_digest=model_digest(helpers.make_model(seed=1)))
    path.unlink()
    helpers.write_task(path, (6, 9, 5), seed=7)
    with pytest.raises(ValueError, match=r"is stale: the data file .* differs .*--overwrite"):
        cache.check_fresh(data_path=path)
