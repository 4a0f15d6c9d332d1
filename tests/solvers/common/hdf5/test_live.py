"""The superblock as HDF5 itself writes it."""

from pathlib import Path

import h5py

from solvers.common.hdf5.live import decode, read_superblock


def _new_file(path: Path, version: str) -> Path:
    with h5py.File(path, "w", libver=(version, "v110")) as file:
        file["data"] = [1.0, 2.0]
    return path


def test_superblock_of_hdf5_survives_decoding_and_encoding(tmp_path: Path) -> None:
    path = _new_file(tmp_path / "new.h5", "v110")
    superblock = read_superblock(path)
    assert superblock is not None
    assert (superblock.version, superblock.flags) == (3, 0)
    assert superblock.end_of_file == path.stat().st_size
    assert superblock.encode() == path.read_bytes()[:48]


def test_older_damaged_and_foreign_bytes_have_no_superblock(tmp_path: Path) -> None:
    assert read_superblock(_new_file(tmp_path / "old.h5", "earliest")) is None
    assert decode(b"not HDF5" * 8) is None
    assert decode(b"") is None
    data = bytearray(_new_file(tmp_path / "new.h5", "v110").read_bytes()[:48])
    data[30] ^= 1
    assert decode(bytes(data)) is None
