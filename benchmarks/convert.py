"""Throughput of a conversion against a bare h5py copy of the same bytes, in turn in the same run."""

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks.common import Row, medians, rate
from gust_torch.convert.commands import convert_family
from gust_torch.convert.output import Options

BLOCK_BYTES = 16 << 20
# Family -> name of a file as released, its fields, their shape.
SOURCES: dict[str, tuple[str, list[str], tuple[int, ...]]] = {
    "burgers1d": ("1D/Burgers/Train/1D_Burgers_Sols_Nu0.01.hdf5", ["tensor"], (201, 1024)),
    "cfd2d": (
        "2D/CFD/2D_Train_Rand/2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_128_Train.hdf5",
        ["density", "pressure", "Vx", "Vy"],
        (21, 128, 128),
    ),
}


def benchmark_convert(gigabytes: float = 1.0, repeats: int = 3) -> list[Row]:
    """MB/s of converting one 1-D and one 2-D file into three splits; needs thrice `gigabytes` of disk."""
    return [_compare(family, gigabytes, repeats) for family in SOURCES]


def _compare(family: str, gigabytes: float, repeats: int) -> Row:
    """One family's row."""
    with tempfile.TemporaryDirectory(prefix="convert-") as folder:
        root = Path(folder)
        source = _write_source(root / "raw", family, gigabytes)
        candidates = {
            "copy": lambda: _copy(source, root / "copy.h5"),
            "convert": lambda: _convert(family, root),
        }
        seconds = medians(candidates, repeats=repeats)
        megabytes = source.stat().st_size / 1e6
    name = f"convert {family}, {megabytes / 1e3:.1f} GB float32 into train, val, test"
    floor = f"h5py copy in {BLOCK_BYTES >> 20} MiB blocks and fsync"
    return rate(name, megabytes, "MB/s", seconds["convert"], seconds["copy"], floor, ">= 0.7")


def _write_source(root: Path, family: str, gigabytes: float) -> Path:
    """Return a file as released, filled with random numbers."""
    name, fields, shape = SOURCES[family]
    path = root / name
    path.parent.mkdir(parents=True)
    num = int(gigabytes * 1e9 / (4 * len(fields) * np.prod(shape)))
    trajectory = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with h5py.File(path, "w") as file:
        for field in fields:
            dataset = file.create_dataset(field, (num, *shape), "f4")
            for index in range(num):
                dataset[index] = trajectory + index  # each is another one
        for axis, size in zip("xy", shape[1:], strict=False):
            file[f"{axis}-coordinate"] = ((np.arange(size) + 0.5) / size).astype(np.float32)
        file["t-coordinate"] = 0.01 * np.arange(shape[0] + 1, dtype=np.float32)
    return path


def _copy(source: Path, target: Path) -> None:
    """Read and write every dataset in blocks, and put the copy on the disk as the conversion does."""
    with h5py.File(source) as read, h5py.File(target, "w") as write:
        for name, dataset in read.items():
            copy = write.create_dataset(name, dataset.shape, dataset.dtype)
            step = max(1, BLOCK_BYTES // (dataset.nbytes // len(dataset)))
            for start in range(0, len(dataset), step):
                copy[start : start + step] = dataset[start : start + step]
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


def _convert(family: str, root: Path) -> None:
    """Convert and remove the outputs."""
    with contextlib.redirect_stderr(io.StringIO()):
        convert_family(family, root / "raw", root / "out", Options())
    shutil.rmtree(root / "out")
