"""Converted grids of two splits, a tiny autoencoder, and caches of its latents."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.frames import GridFrames
from gust_torch.latents.key import data_identity
from gust_torch.latents.writer import CacheWriter
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.spec import FieldSpec
from solvers.common.hdf5_utils import HDF5Writer

LENGTHS = {"train": (6, 9, 5), "val": (4, 7)}  # frames of the trajectories
SPEC = FieldSpec(names=("u",), grid=(16, 1), lengths=(1.0, 1.0))


def write_task(path: Path, lengths: tuple[int, ...], seed: int = 0) -> Path:
    """Return a 1-D task of the common format: trajectories of some lengths, each with its `nu` and `rho`."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(lengths)), lengths)
    # The time step differs from frame to frame and trajectory to trajectory.
    times = np.concatenate([np.cumsum(rng.uniform(0.05, 0.2, n)) for n in lengths])
    metadata = {"solver": "pdebench", "length_x": 1.0, "length_y": 1.0, "boundary_x": "periodic"}
    metadata |= {"boundary_y": "periodic", "grid_y": "uniform"}
    with HDF5Writer(
        path,
        fields={"u": (16, 1)},
        coordinates={"x": (np.arange(16) + 0.5) / 16, "y": np.zeros(1)},
        metadata=metadata,
        parameters={"nu": [0.1 * (i + 1) for i in range(len(lengths))], "rho": [2.0] * len(lengths)},
    ) as writer:
        writer.append(
            {"u": rng.standard_normal((len(ids), 16, 1)).astype(np.float32)}, time=times, trajectory=ids
        )
        writer.close(complete=True)
    return path


def make_model(seed: int = 0) -> LatentAutoencoder:
    """Return a tiny autoencoder of the task."""
    torch.manual_seed(seed)
    model = LatentAutoencoder(
        SPEC, latent_len=3, latent_dim=8, width=16, num_local_layers=1, num_layers=1, num_heads=2
    )
    model.set_statistics(torch.tensor([0.1]), torch.tensor([1.5]))
    return model.eval()


Plan = Callable[..., CacheWriter]
"""`plan(folder, overwrite=False)`: the writer of a cache."""


def make_plan(path: Path, model: LatentAutoencoder, **options: object) -> Plan:
    """Plan of the cache of a grid file, in batches of four."""
    given = {"task": "burgers1d", "split": "train", "data": data_identity(path), "batch_size": 4}
    return partial(
        CacheWriter, model=model, frames=GridFrames(HDF5Dataset(path)), source=path, **{**given, **options}
    )


@torch.no_grad()
def encode(writer: CacheWriter, pending: Sequence[range] | None = None) -> Iterator[None]:
    """Encode what is pending; stops after each batch, so that a test can end it anywhere."""
    for batch in (writer.begin() or ()) if pending is None else pending:
        writer.write(batch.start, writer.model.encode(writer.frames.read(batch)))
        yield


def make_cache(folder: Path, plan: Plan, *, overwrite: bool = False) -> Path:
    """Return a finished cache."""
    with plan(folder, overwrite=overwrite) as writer:
        pending = writer.begin()
        if pending is not None:
            for _ in encode(writer, pending):
                pass
            writer.finish()
    return folder


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    """Return the functions above, for tests that make their own."""
    return SimpleNamespace(
        write_task=write_task,
        make_model=make_model,
        make_plan=make_plan,
        encode=encode,
        make_cache=make_cache,
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data and the caches of both splits, which tests copy."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "pdebench").mkdir()
    for seed, (split, lengths) in enumerate(LENGTHS.items()):
        path = write_task(folder / "pdebench" / f"burgers1d_{split}.h5", lengths, seed)
        make_cache(folder / "latent_cache" / f"burgers1d_{split}", make_plan(path, make_model(), split=split))
    return folder


@pytest.fixture
def root(tmp_path: Path, made: Path) -> Path:
    """Folder with burgers1d_train.h5 and burgers1d_val.h5."""
    return Path(shutil.copytree(made / "pdebench", tmp_path / "pdebench"))


@pytest.fixture
def caches(tmp_path: Path, made: Path) -> Path:
    """Folder with the caches of both splits."""
    return Path(shutil.copytree(made / "latent_cache", tmp_path / "latent_cache"))


@pytest.fixture
def model() -> LatentAutoencoder:
    """Return a tiny autoencoder."""
    return make_model()


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
