"""Writing many small meshes, and reading them at random against plain zarr reads of the same arrays."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.timing import Row, medians
from gust_torch.data.graphs import require
from gust_torch.data.graphs.datasets import MeshZarrDataset
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, Sample, describe
from gust_torch.data.graphs.synthetic import random_mesh

NUM_TEMPLATES = 1024
GOAL = ">= 0.7"


def benchmark_graphs(num_samples: int = 100_000, num_reads: int = 300, repeats: int = 3) -> list[Row]:
    """Samples/s of a ragged store.

    Args:
        num_samples: Samples of the store, of 16 to 47 nodes.
        num_reads: Random samples read in each round.
        repeats: Counted rounds.
    """
    templates = [random_mesh(16 + seed % 32, seed) for seed in range(NUM_TEMPLATES)]
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        path = Path(folder) / "ragged.zarr"
        return [
            *_write(path, templates, num_samples),
            _read("ragged, no cache", path, num_reads, repeats, cache_bytes=0),
            _read("ragged, 64 MiB cache", path, num_reads, repeats, cache_bytes=64 << 20),
        ]


def _write(path: Path, templates: Sequence[Sample], count: int) -> list[Row]:
    """Write `count` samples; rows of the time, the files and the bytes."""
    start = perf_counter()
    with RaggedWriter(path, MESH) as writer:
        for index in range(count):
            arrays = templates[index % len(templates)]
            writer.append(arrays, source=f"mesh_{index:06d}.npz", schema=describe(MESH, arrays))
    seconds = perf_counter() - start
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    raw = sum(
        sum(array.nbytes for array in templates[index % len(templates)].values()) for index in range(count)
    )
    name = f"{path.stem}, {count} meshes"
    return [
        Row(name=f"write {name}", value=seconds, unit="s"),
        Row(name=f"files of {name}", value=len(sizes), unit="files"),
        Row(
            name=f"bytes of {name}",
            value=sum(sizes) / 1e6,
            unit="MB",
            floor=raw / 1e6,
            floor_name="bytes of the arrays",
        ),
    ]


def _read(name: str, path: Path, num_reads: int, repeats: int, *, cache_bytes: int) -> Row:
    """Items of random samples against plain reads of the same samples."""
    dataset = MeshZarrDataset(path, cache_bytes=cache_bytes)
    read_arrays = _plain_reads(path)
    rng = np.random.default_rng(0)

    def items() -> None:
        for index in rng.integers(len(dataset), size=num_reads).tolist():
            dataset[index]

    def arrays() -> None:
        for index in rng.integers(len(dataset), size=num_reads).tolist():
            read_arrays(index)

    seconds = medians({"items": items, "arrays": arrays}, repeats=repeats)
    return Row(
        name=f"random reads, {name}",
        value=num_reads / seconds["items"],
        unit="samples/s",
        floor=num_reads / seconds["arrays"],
        floor_name="zarr reads of the same arrays, no items made",
        goal=GOAL,
    )


def _plain_reads(path: Path) -> Callable[[int], None]:
    """Read the six arrays of a sample, by zarr-python from opened arrays."""
    node = require("zarr").open_group(str(path), mode="r")[MESH.group]
    arrays = {name: node[name] for name in MESH.arrays}
    offsets = {name: node[f"offsets/{array.axis}"][:] for name, array in MESH.arrays.items()}

    def read(index: int) -> None:
        for name in arrays:
            arrays[name][offsets[name][index] : offsets[name][index + 1]]

    return read
