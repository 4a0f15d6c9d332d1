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

from benchmarks.common import Row, medians, rate, write_frames
from gust_torch.artifacts.download import retrieve
from gust_torch.artifacts.fetch import FetchOptions, fetch
from gust_torch.artifacts.package import PackageOptions, package
from gust_torch.artifacts.registry import DatasetEntry
from gust_torch.artifacts.store import open_reference
from gust_torch.artifacts.unpack import unpack

NAME = "burgers1d_benchmark"
POINTS = 1024
SPLITS = ("train", "val", "test")


def benchmark_artifacts(megabytes: int = 48, repeats: int = 3) -> list[Row]:
    """Time the way of a dataset from one folder to another; five times its size is needed on the disk."""
    with tempfile.TemporaryDirectory(prefix="artifacts-") as name:
        folder = Path(name)
        (folder / "source").mkdir()
        rng = np.random.default_rng(0)
        num = megabytes * 10**6 // (4 * POINTS * len(SPLITS))
        x = np.linspace(0.0, 2 * np.pi, POINTS, endpoint=False)
        # Noisy waves shrink about as much as simulated fields do.
        waves = np.sin(x + rng.uniform(0, 2 * np.pi, (num, 1))) + 0.01 * rng.standard_normal((num, POINTS))
        for split in SPLITS:
            write_frames(folder / "source" / f"burgers1d_{split}.h5", "u", waves[..., None])
        entry, tarball = package(PackageOptions(NAME, folder / "source", out=folder))
        entry = replace(entry, artifact=tarball.as_uri())
        (folder / "registry.yaml").write_text(entry.to_yaml(), encoding="utf-8")
        return [
            _packing(folder, entry, repeats),
            *_download(folder, entry, repeats),
            _extraction(folder, entry, repeats),
            _second_run(folder, repeats),
        ]


def _packing(folder: Path, entry: DatasetEntry, repeats: int) -> Row:
    """Packing, with its manifest and digests, against tar."""
    out = folder / "packed"
    out.mkdir()
    members = " ".join(entry.splits.values())
    candidates = {
        "tar": _shell(f"tar -czf {out}/tar.tar.gz -C {folder}/source {members}"),
        "ours": lambda: package(PackageOptions(NAME, folder / "source", out=out, overwrite=True)),
        "clean": lambda: (out / f"{NAME}.tar.gz").unlink(),
    }
    seconds = medians(candidates, repeats=repeats)
    return _rate("pack", entry.unpacked, seconds, "tar", "tar -czf (level 6, no digests)", ">= 1")


def _download(folder: Path, entry: DatasetEntry, repeats: int) -> list[Row]:
    """Time a download from a folder, what it cannot do without, and a copy that checks nothing."""
    cache = folder / "cache"

    def ours() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        retrieve(cache, entry, lambda: open_reference(entry.artifact), workers=8, count=_ignore)

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
    what = "download from file:// and check"
    return [
        _rate(what, entry.size, seconds, "checked", "read, sha256, write, fsync", ">= 0.8"),
        _rate(what, entry.size, seconds, "copy", "cp and sync, unchecked", "for comparison"),
    ]


def _extraction(folder: Path, entry: DatasetEntry, repeats: int) -> Row:
    """Unpacking against tar."""
    target, tarball = folder / "unpacked", folder / f"{NAME}.tar.gz"
    members = tuple(entry.splits.values())

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    clean()
    candidates: dict[str, Callable[[], object]] = {
        "tar": _shell(f"tar -xzf {tarball} -C {target}"),
        "clean": clean,
        "ours": lambda: unpack(tarball, target, members=members, unpacked=entry.unpacked, count=_ignore),
        "clean again": clean,
    }
    return _rate("unpack", entry.unpacked, medians(candidates, repeats=repeats), "tar", "tar -xzf", ">= 1")


def _second_run(folder: Path, repeats: int) -> Row:
    """Time the command when all is in place, and starting the interpreter."""
    root, cache, registry = folder / "root", folder / "cache", folder / "registry.yaml"
    with contextlib.redirect_stderr(io.StringIO()):
        fetch(FetchOptions((NAME,), root, cache, registry), report=lambda line: None)
    script = Path(__file__).parents[1] / "scripts" / "fetch_datasets.py"
    flags = f"--root {root} --cache {cache} --registry {registry}"
    candidates = {
        "python": _shell(f"{sys.executable} -c pass"),
        "ours": _shell(f"{sys.executable} {script} {NAME} {flags}"),
    }
    seconds = medians(candidates, repeats=3 * repeats)
    name = "second run of fetch_datasets.py"
    return Row(name, seconds["ours"], "s", seconds["python"], "python -c pass", "<= 2 s")


def _rate(what: str, size: int, seconds: dict[str, float], other: str, floor: str, goal: str) -> Row:
    name = f"{what}, {size / 1e6:.0f} MB"
    return rate(name, size / 1e6, "MB/s", seconds["ours"], seconds[other], floor, goal)


def _ignore(size: int) -> None:
    """Count no bytes."""


def _shell(command: str) -> Callable[[], object]:
    """Run a command line."""
    return lambda: subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
