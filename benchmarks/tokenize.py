"""Cost of a frame of tokens beside one pass of the encoder alone, timed in turn."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, medians
from gust_torch.data.hdf5_dataset import HDF5Dataset
from gust_torch.models.vqvae import VQVAE2d
from gust_torch.predict import Ranks
from gust_torch.spec import FieldSpec
from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.npz import TokenSource, write_tokens
from gust_torch.tokenizer.options import DataOptions
from gust_torch.tokenizer.pipeline import encode as encode_samples
from gust_torch.tokenizer.tokenizer import VQVAETokenizer
from gust_torch.tokenizer.vocabulary import Vocabulary
from solvers.common.hdf5_utils import HDF5Writer

GOAL = "<= 1.1"
FLOOR = "encoder forward pass"
WRITTEN_FRAMES = 4096


def benchmark_tokenize(
    grids: tuple[int, ...] = (128, 256), *, batch_size: int = 2, repeats: int = 7, num_frames: int = 128
) -> list[Row]:
    """Time tokens against the encoder: in memory with the default model, and a whole pass over a file.

    Args:
        grids: grid sizes n of the n x n fields for the default model.
        batch_size: frames in a batch.
        repeats: rounds, of which the median counts.
        num_frames: frames of the file.
    """
    silence_lightning()
    rows = [time_in_memory(build_model(n, base_channels=128), batch_size, repeats) for n in grids]
    return [*rows, *time_file(build_model(128, base_channels=32), num_frames)]


def build_model(n: int, *, base_channels: int) -> VQVAE2d:
    """Build the default model for n x n vorticity with random weights, its scales cut to the latent grid."""
    torch.manual_seed(0)
    latent = n // 16
    scales = [(size, size) for size in (1, 2, 4, 8, 16) if size <= latent]
    spec = FieldSpec(names=("vorticity",), grid=(n, n))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return VQVAE2d(spec, base_channels=base_channels, scales=scales).to(device).eval()


def time_in_memory(model: VQVAE2d, batch_size: int, repeats: int) -> Row:
    """Time encode with the vocabulary's lookup, fields and tokens staying on the device."""
    n = model.spec.grid[0]
    x = torch.randn(batch_size, 1, n, n, device=model.mean.device)
    tokenizer = VQVAETokenizer(model).fit([x])
    seconds = medians(
        {"encoder": lambda: run_encoder(model, x), "tokens": lambda: wait(tokenizer.encode(x))},
        repeats=repeats,
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return Row(
        name=f"tokens of a frame, {n}x{n}, {millions:.1f} M parameters, batch {batch_size}",
        value=1e3 * seconds["tokens"] / batch_size,
        unit="ms",
        floor=1e3 * seconds["encoder"] / batch_size,
        floor_name=FLOOR,
        goal=GOAL,
    )


def time_file(model: VQVAE2d, num_frames: int, *, batch_size: int = 16, repeats: int = 3) -> list[Row]:
    """Time a pass over a file with everything around it, then writing the token file."""
    n = model.spec.grid[0]
    tokenizer = VQVAETokenizer(model)
    ranks = Ranks(devices="1")
    x = torch.randn(batch_size, 1, n, n, device=model.mean.device)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.h5"
        write_noise(data, n, num_frames)
        dataset = HDF5Dataset(data)
        options = DataOptions("", (str(data),), batch_size=batch_size)

        def encode() -> None:
            encode_samples(tokenizer, dataset, options, ranks)

        def floor() -> None:
            for _ in range(num_frames // batch_size):
                run_encoder(model.to(x.device), x)

        seconds = medians({"encode": encode, "floor": floor}, repeats=repeats)
        write = medians(
            {"write": lambda: write_random(tokenizer, Path(folder) / "tokens.npz")}, repeats=repeats
        )
    return [
        Row(
            name=f"pass over a file of {num_frames} frames, {n}x{n}, batch {batch_size}",
            value=1e3 * seconds["encode"] / num_frames,
            unit="ms",
            floor=1e3 * seconds["floor"] / num_frames,
            floor_name=FLOOR,
        ),
        Row(name="writing the token file, a frame", value=1e3 * write["write"] / WRITTEN_FRAMES, unit="ms"),
    ]


def write_random(tokenizer: VQVAETokenizer, path: Path) -> None:
    """Write a token file of random codes, the worst case for compression."""
    model = tokenizer.model
    generator = np.random.default_rng(0)
    parts = [
        generator.integers(size, size=(WRITTEN_FRAMES, h * w), dtype=np.int16)
        for size, (h, w) in zip(model.vocab_sizes, model.scales, strict=True)
    ]
    counts = [np.ones(size, dtype=np.int64) for size in model.vocab_sizes]
    vocabulary = Vocabulary.from_counts(model.scales, tokenizer.codebooks, counts)
    empty = np.zeros(WRITTEN_FRAMES)
    source = TokenSource(model.spec.names, np.zeros(1), np.ones(1), empty, empty, {})
    write_tokens(path, np.concatenate(parts, axis=1), vocabulary, source, overwrite=True)


def write_noise(path: Path, n: int, num_frames: int) -> None:
    """Write a data file of random frames."""
    x = 2 * np.pi * np.arange(n) / n
    with HDF5Writer(path, fields={"vorticity": (n, n)}, coordinates={"x": x, "y": x}, metadata={}) as writer:
        frames = np.random.default_rng(0).normal(size=(num_frames, n, n)).astype(np.float32)
        writer.append({"vorticity": frames}, time=np.arange(num_frames), trajectory=np.zeros(num_frames, int))
        writer.close(complete=True)


@torch.no_grad()
def run_encoder(model: VQVAE2d, x: torch.Tensor) -> None:
    """Encode x (b, c, h, w) to latents."""
    wait(model.encode(x))


def wait(result: torch.Tensor) -> None:
    """Wait until the device has computed `result`."""
    if result.is_cuda:
        torch.cuda.synchronize()
