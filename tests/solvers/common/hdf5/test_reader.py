"""Opening files of every state, and the errors that say what is wrong."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from solvers.common.hdf5.live import SWMR_FLAG, WRITE_FLAG, read_superblock
from solvers.common.hdf5_utils import HDF5Writer, num_samples, open_file, read_hdf5_info, validate

Write = Callable[..., Path]


def _seed_file(path: Path, libver: str) -> Path:
    """Return a file with the three groups of the first version of the format, chunked by h5py."""
    with h5py.File(path, "w", libver=(libver, "v110")) as file:
        file.create_dataset("fields/omega", data=np.ones((5, 8, 8), np.float32), chunks=(2, 4, 4))
        file["coordinates/x"] = np.arange(8, dtype=np.float32)
        file["coordinates/y"] = np.arange(8, dtype=np.float32)
        file.create_group("metadata").attrs["Re"] = 1000.0
    return path


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110"])
def test_files_with_three_groups_only_are_read(tmp_path: Path, libver: str) -> None:
    path = _seed_file(tmp_path / "seed.h5", libver)
    info = read_hdf5_info(path)
    assert (info.num_samples, info.num_trajectories, info.scalars) == (5, 1, ())
    assert info.metadata == {"Re": 1000.0}
    assert info.parameters == {}
    assert validate(path) == []


def test_an_unfinished_file_is_read_while_this_process_holds_it_open(write_file: Write) -> None:
    path = write_file(3, complete=False)
    with open_file(path) as first, open_file(path) as second:
        assert num_samples(first) == num_samples(second) == 3
        assert first.swmr_mode
    with h5py.File(path, "r"), open_file(path) as file:
        assert num_samples(file) == 3


def test_the_writing_process_reads_its_own_file(
    open_writer: Callable[..., HDF5Writer], tmp_path: Path
) -> None:
    with open_writer() as writer:
        for number in range(3):
            writer.append({"vorticity": np.full((8, 6), number)}, time=number)
            info = read_hdf5_info(tmp_path / "data.h5")
            assert info.num_samples == number + 1
            assert info.metadata["complete"] is False


def test_a_file_that_hdf5_takes_for_open_is_read(write_file: Write) -> None:
    path = write_file(3)
    superblock = read_superblock(path)
    assert superblock is not None
    marked = dataclasses.replace(superblock, flags=WRITE_FLAG | SWMR_FLAG)
    path.write_bytes(marked.encode() + path.read_bytes()[48:])
    with open_file(path) as file:
        assert num_samples(file) == 3


def test_a_foreign_file_left_open_is_refused_with_the_remedy(write_file: Write) -> None:
    path = write_file(3)
    superblock = read_superblock(path)
    assert superblock is not None
    path.write_bytes(dataclasses.replace(superblock, flags=WRITE_FLAG).encode() + path.read_bytes()[48:])
    with pytest.raises(ValueError, match="h5clear"):
        open_file(path)


def test_frames_without_a_time_do_not_count(write_file: Write) -> None:
    path = write_file(4)
    with h5py.File(path, "r+") as file:
        file["coordinates/time"].resize(3, axis=0)
        file["metadata"].attrs["complete"] = False
    assert read_hdf5_info(path).num_samples == 3
    assert validate(path) == []


def test_without_a_time_the_shortest_field_counts(tmp_path: Path) -> None:
    path = _seed_file(tmp_path / "seed.h5", "v110")
    with h5py.File(path, "r+") as file:
        file["fields/psi"] = np.ones((4, 8, 8), np.float32)
    with open_file(path) as file:
        assert num_samples(file) == 4


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"x,y\n1,2\n" * 20)


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[48:200] = bytes(152)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "found none; check the path"),
        (lambda path: path.write_bytes(b""), "found an empty file"),
        (_overwrite, r"starts with b'x,y\\n1,2\\n'; check the path or download it again"),
        (_truncate, "truncated, expected .* bytes, found .*; copy or download it again"),
        (_damage, "truncated or damaged"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_spoiled_file_is_named_with_the_remedy(
    write_file: Write, spoil: Callable[[Path], object], message: str, complete: bool
) -> None:
    path = write_file(4, complete=complete)
    spoil(path)
    with pytest.raises(ValueError, match=message) as caught:
        open_file(path)
    assert str(path) in str(caught.value)
    assert validate(path) == [str(caught.value)]


def test_an_old_style_file_cut_short_is_an_error_too(tmp_path: Path) -> None:
    path = _seed_file(tmp_path / "seed.h5", "earliest")
    _truncate(path)
    with pytest.raises(ValueError, match="truncated"):
        open_file(path)


def test_hdf5_without_fields_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["tensor"] = np.ones(3)
    with pytest.raises(ValueError, match=r"group /fields, found \['tensor'\]; convert it"):
        open_file(tmp_path / "other.h5")


def test_times_about_to_be_dropped_do_not_count(write_file: Write) -> None:
    path = write_file(5, complete=False)
    with h5py.File(path, "r+") as file:
        file["coordinates/time"][3:] = np.nan
    assert read_hdf5_info(path).num_samples == 3
    assert validate(path) == []
