"""Random frames through a `DataLoader` against bare h5py reads of the same frames in the same order."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from torch.utils.data import DataLoader

from benchmarks.timing import Row, medians
from gust_torch.data.hdf5_dataset import HDF5Dataset
from solvers.common.hdf5_utils import HDF5Writer

FILE_BYTES = 256 << 20


def benchmark_loader(
    path: str | None = None,
    *,
    sizes: Sequence[int] = (128, 256, 512),
    batch_size: int = 16,
    num_batches: int = 16,
    repeats: int = 15,
) -> list[Row]:
    """Frames per second of a single-process loader, for files in the page cache.

    The floor reads each frame by ``h5py.Dataset.__getitem__`` and throws it away: it neither assembles a
    batch nor looks for NaN, as the loader does.

    Args:
        path: File to read; by default files of 256 MiB with `sizes` squared frames are made for the occasion.
        sizes: Grid sizes of these.
        batch_size: Frames in a batch.
        num_batches: Random batches timed in each repeat, the same in all.
        repeats: Repeats; loader and floor take turns and medians are quoted.
    """
    if path is not None:
        return [_compare(path, batch_size, num_batches, repeats)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            name = str(Path(folder) / f"{size}.h5")
            _write_noise(name, size)
            rows.append(_compare(name, batch_size, num_batches, repeats))
            Path(name).unlink()
    return rows


def _compare(path: str, batch_size: int, num_batches: int, repeats: int) -> Row:
    """One file, one field."""
    dataset = HDF5Dataset(path)
    count = min(num_batches, len(dataset) // batch_size) * batch_size
    # Other frames in each repeat, the same for both: nothing but the page cache may hold them.
    orders = [_random_batches(len(dataset), count, batch_size, seed) for seed in range(repeats + 1)]
    for_loader, for_h5py = iter(orders), iter(orders)
    with h5py.File(path, "r") as file:
        fields = list(file["fields"].values())
        seconds = medians(
            {
                "loader": lambda: _exhaust(DataLoader(dataset, batch_sampler=next(for_loader))),
                "h5py": lambda: _exhaust(
                    field[i] for batch in next(for_h5py) for i in batch for field in fields
                ),
            },
            repeats=repeats,
        )
    dataset.close()
    return Row(
        name=f"random frames {'x'.join(map(str, dataset.sample_shape))}, batches of {batch_size}, 1 process",
        value=count / seconds["loader"],
        unit="frames/s",
        floor=count / seconds["h5py"],
        floor_name="h5py field[i], frame by frame, same order",
        goal=">= 0.8",
    )


def _exhaust(items: Iterable[object]) -> None:
    """Take every item and drop it."""
    for _ in items:
        pass


def _random_batches(num_samples: int, count: int, batch_size: int, seed: int) -> list[list[int]]:
    """`count` distinct indices in random order, cut into batches."""
    order = np.random.default_rng(seed).permutation(num_samples)[:count]
    return order.reshape(-1, batch_size).tolist()


def _write_noise(path: str, size: int) -> None:
    """Return a file of noise as a solver would write it."""
    rng = np.random.default_rng(0)
    grid = np.arange(size) / size
    metadata = {
        "solver": "noise",
        "boundary_x": "periodic",
        "boundary_y": "periodic",
        "grid_y": "uniform",
        "package_version": "",
        "git_commit": "",
    }
    with HDF5Writer(
        path, fields={"vorticity": (size, size)}, coordinates={"x": grid, "y": grid}, metadata=metadata
    ) as writer:
        for i in range(FILE_BYTES // (4 * size**2)):
            writer.append({"vorticity": rng.standard_normal((size, size), np.float32)}, time=float(i))
        writer.close(complete=True)
