"""Packing, downloading, unpacking and a second fetch, against tar and plain copies of the same bytes."""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.timing import Row, medians
from gust_torch.artifacts.download import retrieve
from gust_torch.artifacts.fetch import FetchOptions, fetch
from gust_torch.artifacts.package import PackageOptions, package
from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.store import open_reference
from gust_torch.artifacts.unpack import unpack
from solvers.common.hdf5_utils import HDF5Writer
from solvers.common.provenance import provenance

NAME = "burgers1d_benchmark"
_POINTS = 1024
_SPLITS = ("train", "val", "test")


def benchmark_artifacts(megabytes: int = 48, repeats: int = 3) -> list[Row]:
    """Return times the way of a dataset from one folder to another.

    Args:
        megabytes: Size of the dataset; five times that is needed on the temporary disk.
        repeats: Counted rounds.
    """
    with tempfile.TemporaryDirectory(prefix="artifacts-") as name:
        folder = Path(name)
        _write_splits(folder / "source", megabytes)
        entry, tarball = package(PackageOptions(NAME, folder / "source", out=folder))
        entry = replace(entry, artifact=tarball.as_uri())
        (folder / "registry.yaml").write_text(entry.to_yaml(), encoding="utf-8")
        return [
            _packing(folder, entry, repeats),
            *_download(folder, entry, repeats),
            _extraction(folder, entry, repeats),
            _second_run(folder, repeats),
        ]


def _write_splits(root: Path, megabytes: int) -> None:
    """Noisy waves in float32, which shrink about as much as simulated fields do."""
    root.mkdir()
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 2 * np.pi, _POINTS, endpoint=False)
    num = megabytes * 10**6 // (4 * _POINTS * len(_SPLITS))
    phases = rng.uniform(0, 2 * np.pi, (num, 1))
    frames = np.sin(x + phases) + 0.01 * rng.standard_normal((num, _POINTS))
    metadata: dict[str, str | int | float | bool] = {
        "solver": "waves",
        "boundary_x": "periodic",
        "boundary_y": "periodic",
        "grid_y": "uniform",
        **provenance(),
    }
    for split in _SPLITS:
        coordinates = {"x": x, "y": np.zeros(1)}
        path = root / f"burgers1d_{split}.h5"
        with HDF5Writer(
            path, fields={"u": (_POINTS, 1)}, coordinates=coordinates, metadata=metadata
        ) as writer:
            writer.append({"u": frames[..., None]}, time=np.arange(num, dtype=np.float64))
            writer.close(complete=True)


def _packing(folder: Path, entry: DatasetEntry, repeats: int) -> Row:
    """Packing, with its manifest and digests, against tar."""
    out = folder / "packed"
    out.mkdir()
    members = " ".join(entry.splits.values())
    seconds = medians(
        {
            "tar": _shell(f"tar -czf {out}/tar.tar.gz -C {folder}/source {members}"),
            "ours": lambda: package(PackageOptions(NAME, folder / "source", out=out, overwrite=True)),
            "clean": lambda: (out / f"{NAME}.tar.gz").unlink(),
        },
        repeats=repeats,
    )
    return _rate(
        "pack", entry.unpacked, (seconds["ours"], seconds["tar"]), "tar -czf (level 6, no digests)", ">= 1"
    )


def _download(folder: Path, entry: DatasetEntry, repeats: int) -> list[Row]:
    """Return a download from a folder, against what it cannot do without, and against a copy that checks
    nothing."""
    cache = folder / "cache"

    def ours() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        retrieve(cache, entry, lambda: open_reference(entry.artifact), workers=8, count=lambda size: None)

    def copy_checked() -> None:
        digest = hashlib.sha256()
        with (folder / f"{NAME}.tar.gz").open("rb") as source, (folder / "checked").open("wb") as target:
            while piece := source.read(1 << 20):
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())

    copy = _shell(f"cp {folder}/{NAME}.tar.gz {folder}/copy && sync {folder}/copy")
    seconds = medians({"checked": copy_checked, "ours": ours, "copy": copy}, repeats=repeats)
    return [
        _rate("download from file:// and check", entry.size, (seconds["ours"], seconds[way]), floor, goal)
        for way, floor, goal in (
            ("checked", "read, sha256, write, fsync", ">= 0.8"),
            ("copy", "cp and sync, unchecked", "for comparison"),
        )
    ]


def _extraction(folder: Path, entry: DatasetEntry, repeats: int) -> Row:
    """Unpacking against tar."""
    target = folder / "unpacked"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    def ours() -> None:
        members = tuple(entry.splits.values())
        unpack(
            folder / f"{NAME}.tar.gz",
            target,
            members=members,
            unpacked=entry.unpacked,
            count=lambda size: None,
        )

    clean()
    seconds = medians(
        {
            "tar": _shell(f"tar -xzf {folder}/{NAME}.tar.gz -C {target}"),
            "clean": clean,
            "ours": ours,
            "clean again": clean,
        },
        repeats=repeats,
    )
    return _rate("unpack", entry.unpacked, (seconds["ours"], seconds["tar"]), "tar -xzf", ">= 1")


def _second_run(folder: Path, repeats: int) -> Row:
    """Return the command when all is in place, against starting the interpreter."""
    root, cache, registry = folder / "root", folder / "cache", folder / "registry.yaml"
    with contextlib.redirect_stderr(io.StringIO()):
        fetch(FetchOptions((NAME,), root, cache, registry), report=lambda line: None)
    script = Path(__file__).parents[1] / "scripts" / "fetch_datasets.py"
    flags = f"--root {root} --cache {cache} --registry {registry}"
    seconds = medians(
        {
            "python": _shell(f"{sys.executable} -c pass"),
            "ours": _shell(f"{sys.executable} {script} {NAME} {flags}"),
        },
        repeats=3 * repeats,
    )
    return Row(
        name="second run of fetch_datasets.py",
        value=seconds["ours"],
        unit="s",
        floor=seconds["python"],
        floor_name="python -c pass",
        goal="<= 2 s",
    )


def _rate(what: str, size: int, seconds: tuple[float, float], floor: str, goal: str) -> Row:
    """Return a row in MB/s, from our seconds and the floor's."""
    ours, best = seconds
    return Row(
        name=f"{what}, {size / 1e6:.0f} MB",
        value=size / 1e6 / ours,
        unit="MB/s",
        floor=size / 1e6 / best,
        floor_name=floor,
        goal=goal,
    )


def _shell(command: str) -> Callable[[], object]:
    """Run a command line."""
    return lambda: subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
