"""Converted grids of two splits, a tiny autoencoder, and caches of its latents."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.frames import GridFrames
from gust_torch.latents.key import data_identity
from gust_torch.latents.plan import CachePlan, plan_cache
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


def make_plan(
    path: Path,
    model: LatentAutoencoder,
    *,
    split: str = "train",
    batch_items: int = 4,
    dtype: str = "float32",
    num_items: int | None = None,
) -> CachePlan:
    """Plan of the cache of a grid file."""
    return plan_cache(
        model,
        GridFrames(HDF5Dataset(path)),
        task="burgers1d",
        split=split,
        source=path,
        data=data_identity(path),
        batch_items=batch_items,
        dtype=dtype,
        num_items=num_items,
    )


@torch.no_grad()
def encode(writer: CacheWriter, path: Path) -> Iterator[None]:
    """Encode what is pending, shard by shard; stops after each batch, so that a test can end it anywhere."""
    frames = GridFrames(HDF5Dataset(path))
    plan = writer.plan
    for shard in writer.pending:
        for row in range(shard.start, shard.stop, plan.batch_size):
            rows = range(row, min(row + plan.batch_size, shard.stop))
            writer.write(shard, row, plan.model.encode(frames.read(rows)))
            yield
        writer.finish_shard(shard)


def make_cache(folder: Path, plan: CachePlan, *, overwrite: bool = False) -> Path:
    """Return a finished cache."""
    with CacheWriter(folder, plan, overwrite=overwrite) as writer:
        writer.begin()
        for _ in encode(writer, Path(plan.source)):
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder with burgers1d_train.h5 and burgers1d_val.h5."""
    folder = tmp_path / "pdebench"
    folder.mkdir()
    for seed, (split, lengths) in enumerate(LENGTHS.items()):
        write_task(folder / f"burgers1d_{split}.h5", lengths, seed)
    return folder


@pytest.fixture
def model() -> LatentAutoencoder:
    """Return a tiny autoencoder."""
    return make_model()


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of eight latents (two batches) instead of 64 MiB."""
    monkeypatch.setattr("gust_torch.latents.plan.SHARD_BYTES", 8 * 3 * 8 * 4)


@pytest.fixture
def caches(tmp_path: Path, root: Path, model: LatentAutoencoder, small_shards: None) -> Path:
    """Folder with the caches of both splits."""
    folder = tmp_path / "latent_cache"
    for split in LENGTHS:
        plan = make_plan(root / f"burgers1d_{split}.h5", model, split=split)
        make_cache(folder / f"burgers1d_{split}", plan)
    return folder
