"""Every layout on disk gives the same frames; what can be read directly is."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from gust_torch.data import readers
from gust_torch.data.hdf5_dataset import HDF5Dataset

FRAMES = np.random.default_rng(1).standard_normal((40, 8, 6)).astype(np.float32)
INDICES = [3, 39, 4, 5, 17, 0, 17, 6]


def write_bare(path: Path, **layout: object) -> Path:
    """Return a file of only fields and coordinates, as the JAX code writes them."""
    with h5py.File(path, "w") as file:
        file.create_dataset("fields/omega", data=FRAMES, **layout)
        file["coordinates/x"], file["coordinates/y"] = np.arange(8.0), np.arange(6.0)
        file.create_group("metadata")
    return path


@pytest.mark.parametrize(
    ("layout", "direct"),
    [
        ({}, True),  # contiguous
        ({"chunks": (1, 8, 6)}, True),
        ({"chunks": (7, 8, 6)}, True),
        ({"chunks": (4, 4, 6)}, False),
        ({"chunks": (1, 8, 6), "compression": "gzip"}, False),
        ({"chunks": (8, 8, 6), "compression": "lzf", "shuffle": True}, False),
        ({"dtype": "f8"}, False),
        ({"dtype": ">f4", "chunks": (1, 8, 6)}, False),
    ],
)
def test_layouts(tmp_path: Path, layout: dict, direct: bool) -> None:
    path = write_bare(tmp_path / "a.h5", **layout)
    dataset = HDF5Dataset(path)
    assert np.array_equal(dataset.__getitems__(INDICES).stacked[:, 0], FRAMES[INDICES])
    assert bool(dataset._sources[0].places) == direct
    assert np.isnan(dataset.times).all()
    assert dataset.trajectories.tolist() == [0] * 40


@pytest.mark.parametrize("compression", [None, "lz4", "gzip"])
def test_files_of_our_writer(write_file, compression) -> None:
    dataset = HDF5Dataset(write_file("a.h5", {"vorticity": FRAMES}, compression=compression))
    assert np.array_equal(dataset.__getitems__(INDICES).stacked[:, 0], FRAMES[INDICES])
    assert bool(dataset._sources[0].places) == (compression is None)


@pytest.mark.parametrize("frames_per_chunk", [1, 4])
def test_frames_that_were_never_stored_are_told(tmp_path: Path, frames_per_chunk: int) -> None:
    path = write_bare(tmp_path / "a.h5", chunks=(frames_per_chunk, 8, 6), maxshape=(None, 8, 6))
    with h5py.File(path, "r+") as file:
        file["fields/omega"].resize(50, axis=0)
        file["fields/omega"][49] = 1.0
    with pytest.raises(ValueError, match=r"a\.h5: /fields/omega: sample 40 was never written"):
        HDF5Dataset(path)


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = write_bare(tmp_path / "a.h5", chunks=(1, 8, 6), compression="gzip")
    with h5py.File(path, "r") as file:
        chunk = file["fields/omega"].id.get_chunk_info_by_coord((9, 0, 0))
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    dataset = HDF5Dataset(path)
    assert np.array_equal(dataset[8][0], FRAMES[8])
    with pytest.raises(ValueError, match=r"a\.h5: frames 9 to 9 cannot be read"):
        dataset[9]


@pytest.mark.parametrize("chunks", [None, (1, 8, 6), (7, 8, 6)])
def test_neighbors_are_read_in_bounded_runs(tmp_path: Path, monkeypatch, chunks) -> None:
    monkeypatch.setattr(readers, "MAX_BUFFERS", 3)
    dataset = HDF5Dataset(write_bare(tmp_path / "a.h5", chunks=chunks))
    order = [*range(8, 20), 30, 2, 3]
    assert np.array_equal(dataset.__getitems__(order).stacked[:, 0], FRAMES[order])


def test_a_dropped_dataset_closes_its_files(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = write_bare(tmp_path / "a.h5")
    before = len(os.listdir("/dev/fd"))
    dataset = HDF5Dataset(path)
    _ = dataset[0]
    assert len(os.listdir("/dev/fd")) == before + 1
    del dataset
    assert len(os.listdir("/dev/fd")) == before
    assert not list(recwarn)
