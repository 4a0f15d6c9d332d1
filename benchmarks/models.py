"""A training step beside its matrix products alone, a frame of tokens beside one pass of the encoder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Row, medians, write_frames
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

MATMUL_SIZE = 2048
WRITTEN_FRAMES = 4096
ENCODER = "encoder forward pass"


def build_model(n: int, **architecture: Any) -> VQVAE2d:
    """Build a model for n x n vorticity with random weights, its scales cut to the latent grid."""
    torch.manual_seed(0)
    scales = [(size, size) for size in (1, 2, 4, 8, 16) if size <= n // 16]
    spec = FieldSpec(names=("vorticity",), grid=(n, n))
    return VQVAE2d(spec, scales=scales, **architecture).to("cuda" if torch.cuda.is_available() else "cpu")


def wait(x: torch.Tensor) -> None:
    """Wait until the device has computed `x`."""
    if x.is_cuda:
        torch.cuda.synchronize()


def millions(model: VQVAE2d) -> float:
    """Parameters of a model, in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def benchmark_train(*, grid: int = 128, repeats: int = 7) -> list[Row]:
    """Time a step (forward, backward, AdamW) of configs/vqvae/demo.yaml's model and of a wider one.

    The floor is the step's floating-point operations in convolutions, matrix products and attention, as
    torch's counter gives them, over the rate of a large float32 matrix product timed in turn with the step.

    Args:
        grid: Grid points along each axis.
        repeats: Rounds, of which the median counts.
    """
    demo: dict[str, Any] = {"patch_size": 4, "base_channels": 32, "channel_mult": (1, 2, 4)}
    demo |= {"num_res_blocks": (0, 1, 1)}
    wide: dict[str, Any] = {"patch_size": 2, "base_channels": 64, "channel_mult": (1, 2, 4, 4)}
    wide |= {"num_res_blocks": (1,) * 4}
    return [_time_step(grid, batch, repeats, **one) for one, batch in ((demo, 16), (wide, 4))]


def _time_step(grid: int, batch_size: int, repeats: int, **architecture: Any) -> Row:
    """One row of the table, of a model in its quantized phase."""
    model = build_model(grid, attention_heads=4, autoencoder_steps=0, **architecture)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(batch_size, 1, grid, grid, device=model.mean.device)
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=x.device)

    def step() -> None:
        output = model(x)
        (output.reconstruction_loss + output.quantizer_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(x)

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    flops = int(counter.get_total_flops())
    seconds = medians({"step": step, "matmul": lambda: wait(torch.mm(a, a))}, repeats=repeats)
    rate = 2 * MATMUL_SIZE**3 / seconds["matmul"]
    return Row(
        name=f"train step, {grid}x{grid}, batch {batch_size}, {millions(model):.2f} M parameters, "
        f"{flops / 1e9:.1f} GFLOP, {torch.get_num_threads()} threads",
        value=1e3 * seconds["step"],
        unit="ms",
        floor=1e3 * flops / rate,
        floor_name=f"forward+backward FLOPs at the float32 matmul rate ({rate / 1e9:.0f} GFLOP/s)",
    )


def benchmark_tokenize(
    grids: Sequence[int] = (128, 256), *, batch_size: int = 2, repeats: int = 7, num_frames: int = 128
) -> list[Row]:
    """Time tokens against the encoder: in memory with the default model, and a whole pass over a file.

    Args:
        grids: Grid sizes n of the n x n fields for the default model.
        batch_size: Frames in a batch.
        repeats: Rounds, of which the median counts.
        num_frames: Frames of the file.
    """
    silence_lightning()
    rows = [time_in_memory(build_model(n, base_channels=128).eval(), batch_size, repeats) for n in grids]
    return [*rows, *_time_file(build_model(128, base_channels=32).eval(), num_frames)]


@torch.no_grad()
def _encode(model: VQVAE2d, x: torch.Tensor) -> None:
    wait(model.encode(x))


def time_in_memory(model: VQVAE2d, batch_size: int, repeats: int) -> Row:
    """Time encode with the vocabulary's lookup, fields and tokens staying on the device."""
    n = model.spec.grid[0]
    x = torch.randn(batch_size, 1, n, n, device=model.mean.device)
    tokenizer = VQVAETokenizer(model).fit([x])
    candidates = {"encoder": lambda: _encode(model, x), "tokens": lambda: wait(tokenizer.encode(x))}
    seconds = medians(candidates, repeats=repeats)
    value, floor = (1e3 * seconds[name] / batch_size for name in ("tokens", "encoder"))
    name = f"tokens of a frame, {n}x{n}, {millions(model):.1f} M parameters, batch {batch_size}"
    return Row(name, value, "ms", floor, ENCODER, "<= 1.1")


def _time_file(model: VQVAE2d, num_frames: int, *, batch_size: int = 16, repeats: int = 3) -> list[Row]:
    """Time a pass over a file with everything around it, then writing the token file."""
    n = model.spec.grid[0]
    tokenizer = VQVAETokenizer(model)
    ranks = Ranks(devices="1")
    x = torch.randn(batch_size, 1, n, n, device=model.mean.device)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.h5"
        frames = np.random.default_rng(0).normal(size=(num_frames, n, n)).astype(np.float32)
        write_frames(data, "vorticity", frames)
        dataset = HDF5Dataset(data)
        options = DataOptions("", (str(data),), batch_size=batch_size)

        def encode() -> None:
            encode_samples(tokenizer, dataset, options, ranks)

        def floor() -> None:
            for _ in range(num_frames // batch_size):
                _encode(model.to(x.device), x)

        seconds = medians({"encode": encode, "floor": floor}, repeats=repeats)
        path = Path(folder) / "tokens.npz"
        write = medians({"write": lambda: _write_random(tokenizer, path)}, repeats=repeats)["write"]
    name = f"pass over a file of {num_frames} frames, {n}x{n}, batch {batch_size}"
    value, bound = (1e3 * seconds[key] / num_frames for key in ("encode", "floor"))
    return [
        Row(name, value, "ms", bound, ENCODER),
        Row("writing the token file, a frame", 1e3 * write / WRITTEN_FRAMES, "ms"),
    ]


def _write_random(tokenizer: VQVAETokenizer, path: Path) -> None:
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
