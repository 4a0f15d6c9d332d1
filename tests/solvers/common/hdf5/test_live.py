"""The superblock as HDF5 itself writes it."""

import dataclasses
from pathlib import Path

import h5py
import pytest

from solvers.common.hdf5.live import (
    SWMR_FLAG,
    WRITE_FLAG,
    decode,
    lookup3,
    read_superblock,
    release_file,
)


def _new_file(path: Path, version: str) -> Path:
    with h5py.File(path, "w", libver=(version, "v110")) as file:
        file["data"] = [1.0, 2.0]
    return path


def test_lookup3_gives_the_value_of_its_author() -> None:
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_superblock_of_hdf5_survives_decoding_and_encoding(tmp_path: Path) -> None:
    path = _new_file(tmp_path / "new.h5", "v110")
    superblock = read_superblock(path)
    assert superblock is not None
    assert (superblock.version, superblock.flags) == (3, 0)
    assert superblock.end_of_file == path.stat().st_size
    assert superblock.encode() == path.read_bytes()[:48]


def test_older_and_foreign_bytes_have_no_superblock(tmp_path: Path) -> None:
    assert read_superblock(_new_file(tmp_path / "old.h5", "earliest")) is None
    assert decode(b"not HDF5" * 8) is None
    assert decode(b"") is None


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    data = bytearray(_new_file(tmp_path / "new.h5", "v110").read_bytes()[:48])
    data[30] ^= 1
    assert decode(bytes(data)) is None


def test_release_opens_a_file_that_a_killed_writer_left_marked(tmp_path: Path) -> None:
    path = _new_file(tmp_path / "new.h5", "v110")
    superblock = read_superblock(path)
    assert superblock is not None
    marked = dataclasses.replace(
        superblock, flags=WRITE_FLAG | SWMR_FLAG, end_of_file=path.stat().st_size + 99
    )
    path.write_bytes(marked.encode() + path.read_bytes()[48:])
    with pytest.raises(OSError, match="Unable to"):
        h5py.File(path, "r")
    release_file(path)
    with h5py.File(path, "r") as file:
        assert file["data"][1] == 2.0


def test_release_refuses_other_files(tmp_path: Path) -> None:
    path = _new_file(tmp_path / "old.h5", "earliest")
    with pytest.raises(ValueError, match="no version 3 superblock"):
        release_file(path)
