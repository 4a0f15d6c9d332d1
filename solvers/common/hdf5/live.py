"""Keeps the superblock of a file that HDF5 is writing such that any program can open the file at any moment.

In SWMR (single writer, multiple readers) mode HDF5 orders its writes so that the metadata on disk is
consistent at every instant. Two things still keep other programs out, both in the superblock: the status
byte that says "open for writing", and the end-of-file address, which HDF5 updates on disk at a flush of the
whole file only. `LiveSuperblock` takes over both. The writer then flushes datasets, never the whole file, so
that HDF5 leaves the superblock alone between opening and closing.
"""

import dataclasses
import os
from pathlib import Path

from solvers.common.hdf5.superblock import decode, read_superblock, write_superblock

_MIN_AHEAD_BYTES = 4 << 20
_AHEAD_APPENDS = 8
_SUPERBLOCK_BYTES = 48


class LiveSuperblock:
    """The superblock of a file open for SWMR writing, under our control.

    The end-of-file address is kept ahead of the data, and the file's length ahead of that: both are raised
    before HDF5 writes there, so that nothing on disk ever lies past the address, and a program that looked
    at the length before it read the address does not take the file for truncated. The file grows sparsely,
    which takes no space.
    """

    def __init__(self, path: Path) -> None:
        """Take over the superblock of the file at `path`, which HDF5 has just opened for SWMR writing."""
        self._descriptor = os.open(path, os.O_RDWR)
        superblock = decode(os.pread(self._descriptor, _SUPERBLOCK_BYTES, 0))
        if superblock is None:
            os.close(self._descriptor)
            raise ValueError(f"{path}: expected a version 3 superblock as written by HDF5 >= 1.10")
        self._superblock = dataclasses.replace(superblock, flags=0)
        self._reserved = 0

    def reserve(self, allocated: int, extra: int) -> None:
        """Make room for `extra` bytes after the `allocated` ones, and more, so that few calls have to do
        anything.

        Raises:
            OSError: If the file cannot grow (a quota or a file size limit).
        """
        if allocated + extra <= self._reserved:
            return
        ahead = max(_MIN_AHEAD_BYTES, _AHEAD_APPENDS * extra)
        reserved = allocated + ahead
        if os.fstat(self._descriptor).st_size < reserved + ahead:
            os.ftruncate(self._descriptor, reserved + ahead)
        write_superblock(self._descriptor, dataclasses.replace(self._superblock, end_of_file=reserved))
        self._reserved = reserved

    def settle(self, allocated: int) -> None:
        """Give up what was reserved past `allocated`, before HDF5 flushes or closes the file as a whole.

        HDF5 then cuts the file off there, and it may do so before it writes its own superblock. A `reserve`
        after that takes the superblock over again.
        """
        write_superblock(self._descriptor, dataclasses.replace(self._superblock, end_of_file=allocated))
        self._reserved = 0

    def sync(self) -> None:
        """Ask the operating system to put all that was written on the disk (against power failure)."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file. HDF5 writes the superblock itself when it closes the file."""
        os.close(self._descriptor)


def trim(path: Path) -> None:
    """Cut off what `LiveSuperblock` reserved past the end of a file that HDF5 has closed."""
    superblock = read_superblock(path)
    if superblock is not None and superblock.end_of_file < path.stat().st_size:
        os.truncate(path, superblock.end_of_file)
