"""Cost of making a latent cache, and what training from it saves, each beside its floor."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, medians
from gust_torch.checkpoint import save_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.dataset import FrameWindowDataset, LatentDataset
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.command import Request
from gust_torch.precompute.pipeline import precompute
from solvers.common.hdf5_utils import HDF5Writer

TASK = "burgers1d"
POINTS = 1024
NUM_TIMES = 64
LATENTS = {"latent_len": 128, "latent_dim": 512}
BATCH = 32


def benchmark_latents(*, num_frames: int = 256, repeats: int = 3) -> list[Row]:
    """Time frames of 1024 points through an encoder to 128 tokens of 512 features, and windows of the cache.

    Args:
        num_frames: Frames of the file.
        repeats: Rounds, of which the median counts.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"{TASK}_train.h5"
        write_waves(path, num_frames)
        dataset = HDF5Dataset(path)
        torch.manual_seed(0)
        model = LatentAutoencoder(dataset.spec, width=128, **LATENTS).eval()
        model.set_statistics(*dataset.statistics())
        save_model(model, folder / "model.ckpt")
        request = Request(
            tasks=(TASK,),
            splits=("train",),
            root=folder,
            cache_dir=folder / "cache",
            checkpoint=folder / "model.ckpt",
            batch_size=BATCH,
            devices="1",
        )
        return [
            *time_encoding(request, model, dataset, repeats),
            *time_reading(request, model, path, repeats),
        ]


def time_encoding(
    request: Request, model: LatentAutoencoder, dataset: HDF5Dataset, repeats: int
) -> list[Row]:
    """Return the whole command, less its imports, against the encoder on batches that are in memory
    already."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    num = len(dataset)
    batches = [
        torch.stack(dataset.__getitems__(range(start, min(start + BATCH, num)))).to(device)
        for start in range(0, num, BATCH)
    ]
    folders = iter(range(1000))

    def command() -> None:
        """Return a new cache each time; the last one stays where `request` says."""
        cache_dir = request.cache_dir / str(next(folders))
        precompute(dataclasses.replace(request, cache_dir=cache_dir))

    moved = model.to(device)
    loop = encoding_loop(moved, batches)
    seconds = medians({"command": command, "loop": loop}, repeats=repeats)
    model.to("cpu")
    return [
        Row(
            name=f"making a cache of {num} frames of {POINTS} points, 128 x 512 tokens, {device}",
            value=num / seconds["command"],
            unit="frames/s",
            floor=num / seconds["loop"],
            floor_name="encoder on batches in memory",
            goal=">= 0.8",
        )
    ]


def time_reading(request: Request, model: LatentAutoencoder, path: Path, repeats: int) -> list[Row]:
    """Shuffled windows of two states: from the cache, encoded again on the CPU, and copied from one map."""
    cache = LatentCache.open(request.cache_dir / "0" / f"{TASK}_train")
    latents = LatentDataset(cache)
    frames = FrameWindowDataset(HDF5Dataset(path, n_steps=2), str(path))
    order = np.random.default_rng(0).permutation(len(latents))[: 4 * BATCH].reshape(-1, BATCH)
    flat = Path(request.cache_dir) / "flat.npy"
    np.save(flat, cache.latents(range(len(cache))))
    mapped = np.load(flat, mmap_mode="r")

    def read() -> None:
        for windows in order.tolist():
            latents.__getitems__(windows)

    def copy() -> None:
        for windows in order:
            torch.from_numpy(mapped[latents.rows[windows].ravel()])

    def encode() -> None:
        with torch.inference_mode():
            for windows in order.tolist():
                model.encode(frames.__getitems__(windows)[0].states.flatten(0, 1))

    seconds = medians({"read": read, "copy": copy}, repeats=10 * repeats)
    seconds |= medians({"encode": encode}, repeats=repeats)
    num = order.size
    rate, unit = num / seconds["read"], "windows/s"
    name = f"shuffled windows of 2 states from the cache, batch {BATCH}"
    return [
        Row(name, rate, unit, floor=num / seconds["encode"], floor_name="encoding again, CPU", goal=">= 20"),
        Row(
            name,
            rate,
            unit,
            floor=num / seconds["copy"],
            floor_name="copy from one memory map",
            goal=">= 0.8",
        ),
    ]


def encoding_loop(model: LatentAutoencoder, batches: list[torch.Tensor]) -> Callable[[], None]:
    """Return the floor: nothing but the encoder."""

    def loop() -> None:
        with torch.inference_mode():
            for batch in batches:
                latents = model.encode(batch)
        if latents.is_cuda:
            torch.cuda.synchronize()

    return loop


def write_waves(path: Path, num_frames: int) -> None:
    """Trajectories of 64 frames of sines."""
    x = np.arange(POINTS) / POINTS
    phases = np.random.default_rng(0).random((num_frames, 1))
    values = np.sin(2 * np.pi * (x + phases)).astype(np.float32)[..., None]
    axes = {"x": x, "y": np.zeros(1)}
    metadata: dict[str, str | int | float | bool] = {"boundary_x": "periodic", "boundary_y": "periodic"}
    metadata |= {"length_x": 1.0, "length_y": 1.0}
    with HDF5Writer(path, fields={"u": (POINTS, 1)}, coordinates=axes, metadata=metadata) as writer:
        frame = np.arange(num_frames)
        writer.append({"u": values}, time=frame % NUM_TIMES, trajectory=(frame // NUM_TIMES).astype(np.int32))
        writer.close(complete=True)
