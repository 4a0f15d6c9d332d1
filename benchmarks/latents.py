"""Cost of making a latent cache, and what training from it saves, each beside its floor."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Row, medians, rate, write_frames
from gust_torch.checkpoint import save_model
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.latents.cache import LatentCache
from gust_torch.latents.dataset import FrameWindowDataset, LatentDataset
from gust_torch.models.latent_autoencoder import LatentAutoencoder
from gust_torch.precompute.command import Request
from gust_torch.precompute.pipeline import precompute

TASK = "burgers1d"
POINTS = 1024
NUM_TIMES = 64
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
        phases = np.random.default_rng(0).random((num_frames, 1))
        waves = np.sin(2 * np.pi * (np.arange(POINTS) / POINTS + phases)).astype(np.float32)
        write_frames(path, "u", waves[..., None], num_times=NUM_TIMES)
        dataset = HDF5Dataset(path)
        torch.manual_seed(0)
        model = LatentAutoencoder(dataset.spec, width=128, latent_len=128, latent_dim=512).eval()
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
        encoding = _time_encoding(request, model, dataset, repeats)
        cache = LatentCache.open(request.cache_dir / "0" / f"{TASK}_train")
        return [encoding, *_time_reading(cache, model, path, repeats)]


def _time_encoding(request: Request, model: LatentAutoencoder, dataset: HDF5Dataset, repeats: int) -> Row:
    """Time the whole command, less its imports, and the encoder on batches that are in memory already."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    num = len(dataset)
    parts = torch.arange(num).split(BATCH)
    batches = [torch.stack(dataset.__getitems__(part.tolist())).to(device) for part in parts]
    folders = itertools.count()
    moved = model.to(device)

    def command() -> None:
        """Make a new cache each time."""
        precompute(dataclasses.replace(request, cache_dir=request.cache_dir / str(next(folders))))

    @torch.inference_mode()
    def loop() -> None:
        for batch in batches:
            latents = moved.encode(batch)
        if latents.is_cuda:
            torch.cuda.synchronize()

    seconds = medians({"command": command, "loop": loop}, repeats=repeats)
    model.to("cpu")
    name = f"making a cache of {num} frames of {POINTS} points, 128 x 512 tokens, {device}"
    floor = "encoder on batches in memory"
    return rate(name, num, "frames/s", seconds["command"], seconds["loop"], floor, ">= 0.8")


def _time_reading(cache: LatentCache, model: LatentAutoencoder, path: Path, repeats: int) -> list[Row]:
    """Shuffled windows of two states: from the cache, encoded again on the CPU, and copied from one map."""
    latents = LatentDataset(cache)
    frames = FrameWindowDataset(HDF5Dataset(path, n_steps=2), str(path))
    order = np.random.default_rng(0).permutation(len(latents))[: 4 * BATCH].reshape(-1, BATCH)
    flat = path.with_name("flat.npy")
    np.save(flat, cache.latents(range(len(cache))))
    mapped = np.load(flat, mmap_mode="r")

    def read() -> None:
        for windows in order.tolist():
            latents.__getitems__(windows)

    def copy() -> None:
        for windows in order:
            torch.from_numpy(mapped[latents.rows[windows].ravel()])

    @torch.inference_mode()
    def encode() -> None:
        for windows in order.tolist():
            model.encode(frames.__getitems__(windows)[0].states.flatten(0, 1))

    seconds = medians({"read": read, "copy": copy}, repeats=10 * repeats)
    seconds |= medians({"encode": encode}, repeats=repeats)
    name = f"shuffled windows of 2 states from the cache, batch {BATCH}"
    return [
        rate(name, order.size, "windows/s", seconds["read"], seconds[way], floor, goal)
        for way, floor, goal in (
            ("encode", "encoding again, CPU", ">= 20"),
            ("copy", "copy from one memory map", ">= 0.8"),
        )
    ]
