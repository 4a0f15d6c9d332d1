"""Random frames against bare h5py reads, random meshes against plain zarr reads, of the same in turn."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
from torch.utils.data import DataLoader

from benchmarks.common import Row, medians, rate, write_frames
from gust_torch.data.graphs import require
from gust_torch.data.graphs.datasets import MeshZarrDataset
from gust_torch.data.graphs.ragged import RaggedWriter
from gust_torch.data.graphs.schema import MESH, describe
from gust_torch.data.graphs.synthetic import random_mesh
from gust_torch.data.hdf5_dataset import HDF5Dataset

FILE_BYTES = 256 << 20
NUM_TEMPLATES = 1024


def benchmark_loader(
    *, sizes: Sequence[int] = (128, 256, 512), batch_size: int = 16, num_batches: int = 16, repeats: int = 15
) -> list[Row]:
    """Frames per second of a single-process loader, for files of 256 MiB in the page cache.

    The floor reads each frame by ``h5py.Dataset.__getitem__`` and throws it away: it neither assembles a
    batch nor looks for NaN, as the loader does.

    Args:
        sizes: Grid sizes of the files.
        batch_size: Frames in a batch.
        num_batches: Random batches timed in each repeat, the same in all.
        repeats: Repeats; loader and floor take turns and medians are quoted.
    """
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{size}.h5"
            rng = np.random.default_rng(0)
            num = FILE_BYTES // (4 * size**2)
            write_frames(path, "vorticity", rng.standard_normal((num, size, size), np.float32))
            rows.append(_time_frames(path, batch_size, num_batches, repeats))
    return rows


def _time_frames(path: Path, batch_size: int, num_batches: int, repeats: int) -> Row:
    """One file, one field."""
    dataset = HDF5Dataset(path)
    count = min(num_batches, len(dataset) // batch_size) * batch_size
    # Other frames in each repeat, the same for both: nothing but the page cache may hold them.
    permutations = [np.random.default_rng(seed).permutation(len(dataset)) for seed in range(repeats + 1)]
    orders = [order[:count].reshape(-1, batch_size).tolist() for order in permutations]
    for_loader, for_h5py = iter(orders), iter(orders)
    with h5py.File(path, "r") as file:
        field = file["fields/vorticity"]
        candidates = {
            "loader": lambda: _exhaust(DataLoader(dataset, batch_sampler=next(for_loader))),
            "h5py": lambda: _exhaust(field[i] for batch in next(for_h5py) for i in batch),
        }
        seconds = medians(candidates, repeats=repeats)
    dataset.close()
    shape = "x".join(map(str, dataset.sample_shape))
    name = f"random frames {shape}, batches of {batch_size}, 1 process"
    floor = "h5py field[i], frame by frame, same order"
    return rate(name, count, "frames/s", seconds["loader"], seconds["h5py"], floor, ">= 0.8")


def _exhaust(items: Iterable[object]) -> None:
    """Take every item and drop it."""
    deque(items, maxlen=0)


def benchmark_graphs(num_samples: int = 100_000, num_reads: int = 300, repeats: int = 3) -> list[Row]:
    """Time writing a ragged store of meshes of 16 to 47 nodes, and reading random ones.

    Args:
        num_samples: Samples of the store.
        num_reads: Random samples read in each round.
        repeats: Counted rounds.
    """
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        path = Path(folder) / "ragged.zarr"
        return [
            *_write_meshes(path, num_samples),
            _read_meshes("ragged, no cache", path, num_reads, repeats, cache_bytes=0),
            _read_meshes("ragged, 64 MiB cache", path, num_reads, repeats, cache_bytes=64 << 20),
        ]


def _write_meshes(path: Path, count: int) -> list[Row]:
    """Write `count` samples; rows of the time, the files and the bytes."""
    templates = [random_mesh(16 + seed % 32, seed) for seed in range(NUM_TEMPLATES)]
    samples = [templates[index % NUM_TEMPLATES] for index in range(count)]
    start = perf_counter()
    with RaggedWriter(path, MESH) as writer:
        for index, arrays in enumerate(samples):
            writer.append(arrays, source=f"mesh_{index:06d}.npz", schema=describe(MESH, arrays))
    seconds = perf_counter() - start
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    raw = sum(array.nbytes for arrays in samples for array in arrays.values())
    name = f"{path.stem}, {count} meshes"
    return [
        Row(f"write {name}", seconds, "s"),
        Row(f"files of {name}", len(sizes), "files"),
        Row(f"bytes of {name}", sum(sizes) / 1e6, "MB", raw / 1e6, "bytes of the arrays"),
    ]


def _read_meshes(name: str, path: Path, num_reads: int, repeats: int, *, cache_bytes: int) -> Row:
    """Items of random samples against plain reads of the same samples."""
    dataset = MeshZarrDataset(path, cache_bytes=cache_bytes)
    node = require("zarr").open_group(str(path), mode="r")[MESH.group]
    arrays = {key: node[key] for key in MESH.arrays}
    offsets = {key: node[f"offsets/{array.axis}"][:] for key, array in MESH.arrays.items()}
    rng = np.random.default_rng(0)

    def read_arrays(index: int) -> None:
        for key, values in arrays.items():
            values[offsets[key][index] : offsets[key][index + 1]]

    def all_random(read: Callable[[int], object]) -> Callable[[], None]:
        return lambda: _exhaust(map(read, rng.integers(len(dataset), size=num_reads).tolist()))

    candidates = {"items": all_random(dataset.__getitem__), "arrays": all_random(read_arrays)}
    seconds = medians(candidates, repeats=repeats)
    floor = "zarr reads of the same arrays, no items made"
    what = f"random reads, {name}"
    return rate(what, num_reads, "samples/s", seconds["items"], seconds["arrays"], floor, ">= 0.7")
