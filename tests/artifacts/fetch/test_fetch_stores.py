"""Fetches from S3 and W&B."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gust_torch.artifacts.store import Upload, open_store, stamp

Place = Any  # of conftest.py


def upload_of(tarball: Path) -> Upload:
    """Return the tarball as an upload."""
    return Upload(
        "burgers1d-subset",
        "dataset",
        tarball,
        {},
        hashlib.sha256(tarball.read_bytes()).hexdigest(),
        stamp(tarball),
    )


def test_from_s3(
    place: Place, run: Callable[..., str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gust_torch.artifacts.download.PIECE_BYTES", 100_000)
    entry = place.add(files={"burgers1d_train.h5": os.urandom(1_000_000)})
    tarball = place.folder / "store" / f"{place.name}.tar.gz"
    reference = open_store(f"s3://{s3_bucket}/data").put(upload_of(tarball))[-1]
    tarball.unlink()
    place.register(replace(entry, artifact=reference))
    assert run().endswith("fetched\n")
    assert place.cached(entry).stat().st_size == entry.size


def test_an_object_that_is_not_in_s3(place: Place, refused: Callable[..., str], s3_bucket: str) -> None:
    place.register(replace(place.add(), artifact=f"s3://{s3_bucket}/nothing/x.tar.gz"))
    assert "no such" in refused()


def test_from_wandb(
    place: Place, run: Callable[..., str], refused: Callable[..., str], fake_wandb: object
) -> None:
    entry = place.add(artifact="burgers1d-subset:v0")
    assert "give --entity (or WANDB_ENTITY) and --project" in refused()
    tarball = place.folder / "store" / f"{place.name}.tar.gz"
    store = open_store(project="gust", entity="lab", cache_dir=place.cache)
    assert store.put(upload_of(tarball))[-1] == "lab/gust/burgers1d-subset:v0"
    assert run(place.name, "--entity", "lab", "--project", "gust").endswith("fetched\n")
    assert place.content() == place.files
    assert place.cached(entry).is_file()
    assert run().endswith("up to date\n")  # without entity and project
