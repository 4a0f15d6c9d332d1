"""Handles across processes, memory on huge files, files that are being written."""

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gust_torch.data import readers
from gust_torch.data.hdf5_dataset import HDF5Dataset
from solvers.common.hdf5_utils import HDF5Writer

ROOT = Path(__file__).resolve().parents[2]
FRAMES = np.random.default_rng(2).standard_normal((24, 8, 6)).astype(np.float32)


@pytest.mark.parametrize(("context", "num_workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_what_the_parent_reads(write_file, context: str, num_workers: int) -> None:
    paths = [
        write_file("a.h5", {"v": FRAMES[:10]}),
        write_file("b.h5", {"v": FRAMES[10:]}, compression="gzip"),
    ]
    dataset = HDF5Dataset(paths)
    assert np.array_equal(dataset[12][0], FRAMES[12])  # the parent's handles are open
    loader = DataLoader(dataset, batch_size=5, num_workers=num_workers, multiprocessing_context=context)
    assert np.array_equal(torch.cat(list(loader))[:, 0], FRAMES)
    assert np.array_equal(dataset[13][0], FRAMES[13])  # and still work


def test_pickle_leaves_the_handles_out(write_file) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"v": FRAMES}), normalize=True)
    expected = dataset[3]
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy._handles._open.cache_info().currsize
    assert torch.equal(copy[3], expected)


def test_a_forked_child_opens_its_own_handles(write_file, monkeypatch) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"v": FRAMES}))
    parents = dataset._handles.file(0)
    assert dataset._handles.file(0) is parents
    monkeypatch.setattr(readers.os, "getpid", lambda: -1)
    assert dataset._handles.file(0) is not parents
    assert np.array_equal(dataset[3][0], FRAMES[3])


def test_no_more_files_are_open_than_allowed(write_file, monkeypatch) -> None:
    monkeypatch.setattr(readers, "MAX_OPEN_FILES", 2)
    paths = [write_file(f"{i}.h5", {"v": FRAMES[4 * i : 4 * i + 4]}) for i in range(6)]
    dataset = HDF5Dataset(paths)
    assert np.array_equal(dataset.__getitems__(list(range(24))).stacked[:, 0], FRAMES)
    assert dataset._handles._open.cache_info().currsize == 2


def test_a_huge_file_costs_little_memory(tmp_path: Path) -> None:
    """128 GiB of frames, most of them a hole in the file: opening and reading one takes no more than that."""
    path = tmp_path / "huge.h5"
    num_frames, size = 131072, 512
    with h5py.File(path, "w", libver="v110") as file:
        field = file.create_dataset("fields/v", (num_frames, size, size), "f4")
        for i in (0, 1000, num_frames - 1):
            field[i] = i
        file["coordinates/x"] = file["coordinates/y"] = np.arange(float(size))
        file["coordinates/time"] = np.arange(float(num_frames))
    code = """
import resource, sys
from gust_torch import HDF5Dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = HDF5Dataset(sys.argv[1])
assert len(dataset) == 131072
assert dataset[131071].max() == 131071 and dataset[1000].min() == 1000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # Two frames of 1 MiB, and times, trajectories, frame numbers, addresses: 8 bytes a frame each.
    assert int(result.stdout) / 1024 < 32


def test_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "live.h5"
    with HDF5Writer(
        path,
        fields={"v": (8, 6)},
        coordinates={"x": np.arange(8.0), "y": np.arange(6.0)},
        metadata={"boundary_x": "periodic", "boundary_y": "periodic", "grid_y": "uniform"},
    ) as writer:
        for i in range(7):
            writer.append({"v": FRAMES[i]}, time=float(i))
        dataset = HDF5Dataset(path)
        assert np.array_equal(dataset.__getitems__(list(range(7))).stacked[:, 0], FRAMES[:7])
        writer.append({"v": FRAMES[7:]}, time=np.arange(7.0, 24.0))
        assert len(dataset) == 7
        assert np.array_equal(dataset[6][0], FRAMES[6])
        assert len(HDF5Dataset(path)) == 24
