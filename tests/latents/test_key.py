"""What changes a key, and what does not; the identity of data."""

import dataclasses
import os
import time
from pathlib import Path

import pytest
import torch

from gust_torch.checkpoint import load_model, model_digest, save_model
from gust_torch.latents.key import DataIdentity, LatentKey, data_identity
from gust_torch.models.latent_autoencoder import LatentAutoencoder

# File systems note times to a tick of the kernel, at most 10 ms.
CLOCK_TICK = 0.02
DATA = DataIdentity("0" * 64, 10, "stamp")


def test_the_digest_is_that_of_the_content(model: LatentAutoencoder, helpers, tmp_path: Path) -> None:
    digest = model_digest(model)
    assert model_digest(helpers.make_model()) == digest
    save_model(model, tmp_path / "a.ckpt")
    assert model_digest(load_model(tmp_path / "a.ckpt", LatentAutoencoder)) == digest
    assert model_digest(helpers.make_model(seed=1)) != digest
    with torch.no_grad():
        weight = next(model.parameters())
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(torch.inf))
    assert model_digest(model) != digest


def test_a_key_names_what_differs(model: LatentAutoencoder, helpers) -> None:
    key = LatentKey.of(model, DATA, num_samples=5)
    assert key.differences(LatentKey.of(helpers.make_model(), DATA, num_samples=5)) == []
    assert key.hex == LatentKey.of(model, DATA, num_samples=5).hex
    other = helpers.make_model(seed=1)
    (line,) = key.differences(LatentKey.of(other, DATA, num_samples=5))
    assert line.startswith(f"encoder: {key.encoder:.50}")
    assert f" there, {model_digest(other):.50}" in line
    other.set_statistics(torch.tensor([0.0]), torch.tensor([2.0]))
    changed = dataclasses.replace(
        LatentKey.of(other, dataclasses.replace(DATA, sha256="1" * 64), num_samples=6, dtype="float16"),
        format_version=1,
    )
    assert [line.partition(":")[0] for line in key.differences(changed)] == [
        "encoder",
        "data",
        "statistics.mean",
        "statistics.std",
        "num_samples",
        "dtype",
        "format_version",
    ]
    options = LatentKey.of(model, DATA, num_samples=5, options={"transform": "PoissonField(seed=0)"})
    assert key.differences(options) == ["config.data.transform: absent there, PoissonField(seed=0) now"]
    assert len({key.hex, changed.hex, options.hex}) == 3


def test_identity_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"first")
    found = data_identity(path)
    path.with_name("b.h5").write_bytes(b"first")
    assert data_identity(path.with_name("b.h5")).sha256 == found.sha256
    os.utime(path, ns=(1, 1))  # touched, not changed: the content decides
    touched = data_identity(path, known=found)
    assert touched.sha256 == found.sha256
    assert touched.stamp != found.stamp
    with monkeypatch.context() as patch:
        patch.setattr("gust_torch.latents.key._hash", lambda path: pytest.fail("hashed again"))
        assert data_identity(path, known=touched) == touched
    # Same size and time of change, as after `cp -p`: the inode's time of change tells.
    time.sleep(CLOCK_TICK)
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert data_identity(path, known=touched).sha256 != found.sha256


def test_identity_of_a_folder(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    for name, content in (("zarr.json", b"{}"), ("group/c/0", b"chunk"), ("group/c/1", b"")):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)
    found = data_identity(store)
    assert data_identity(store, known=found) == found
    copy = tmp_path / "b.zarr"
    for path in sorted(store.rglob("*"), reverse=True):
        if path.is_file():
            target = copy / path.relative_to(store)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert data_identity(copy).sha256 == found.sha256
    (copy / "group/c/1").rename(copy / "group/c/2")
    assert data_identity(copy).sha256 != found.sha256
    time.sleep(CLOCK_TICK)
    (store / "group/c/0").write_bytes(b"chumk")
    assert data_identity(store, known=found).sha256 != found.sha256


def test_data_that_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"first")
    monkeypatch.setattr("gust_torch.latents.key._hash", lambda path: str(path.write_bytes(b"longer")))
    with pytest.raises(ValueError, match="changed while it was read"):
        data_identity(path)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data at"):
        data_identity(tmp_path / "none.h5")
