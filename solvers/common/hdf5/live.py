"""The first 48 bytes of an HDF5 file, and how a file that HDF5 is writing stays open to every program.

HDF5 marks a file that is open for writing in the status byte of its superblock, and refuses to open a file
whose writer died without clearing it. In SWMR (single writer, multiple readers) mode it orders its writes so
that the rest of the file is consistent at every instant. Two things still keep other programs out, both in
the superblock: that byte, and the end-of-file address, which HDF5 updates at a flush of the whole file
only. `LiveSuperblock` takes over both. The writer then flushes datasets, never the whole file, so that HDF5
leaves the superblock alone between opening and closing. Layout: HDF5 File Format Specification 3.0, section
II.A "Disk Format: Level 0A".
"""

import dataclasses
import os
import struct
from pathlib import Path

SIGNATURE = b"\x89HDF\r\n\x1a\n"
WRITE_FLAG = 0x01
SWMR_FLAG = 0x04

# signature, version, offset size, length size, status flags, base, extension, end of file, root group,
# checksum
_LAYOUT = struct.Struct("<8sBBBBQQQQI")
_CHECKSUM = struct.Struct("<I")

_MIN_AHEAD_BYTES = 4 << 20
_AHEAD_APPENDS = 8
_SUPERBLOCK_BYTES = 48


@dataclasses.dataclass(frozen=True)
class Superblock:
    """The fields of a version 2 or 3 superblock with 8-byte offsets and lengths."""

    version: int
    flags: int
    base_address: int
    extension_address: int
    end_of_file: int
    root_address: int

    @property
    def open_for_write(self) -> bool:
        """Whether HDF5 takes the file for one that a program is writing."""
        return bool(self.flags & (WRITE_FLAG | SWMR_FLAG))

    def encode(self) -> bytes:
        """Return the 48 bytes with their checksum."""
        body = _LAYOUT.pack(
            SIGNATURE,
            self.version,
            8,
            8,
            self.flags,
            self.base_address,
            self.extension_address,
            self.end_of_file,
            self.root_address,
            0,
        )[: -_CHECKSUM.size]
        return body + _CHECKSUM.pack(lookup3(body))


def decode(data: bytes) -> Superblock | None:
    """Superblock from the first 48 bytes of a file, None where they are not a valid one of version 2 or 3."""
    if len(data) < _LAYOUT.size:
        return None
    fields = _LAYOUT.unpack(data[: _LAYOUT.size])
    signature, version, size_of_offsets, size_of_lengths, flags = fields[:5]
    if signature != SIGNATURE or version not in (2, 3) or (size_of_offsets, size_of_lengths) != (8, 8):
        return None
    if lookup3(data[: _LAYOUT.size - _CHECKSUM.size]) != fields[-1]:
        return None
    return Superblock(version, flags, *fields[5:9])


def read_superblock(path: str | os.PathLike[str]) -> Superblock | None:
    """Superblock of the file at `path`, None where it has none of version 2 or 3."""
    with Path(path).open("rb") as file:
        return decode(file.read(_LAYOUT.size))


def write_superblock(descriptor: int, superblock: Superblock) -> None:
    """Overwrite the superblock by one system call on a file descriptor opened for writing."""
    os.pwrite(descriptor, superblock.encode(), 0)


def release_file(path: str | os.PathLike[str]) -> None:
    """Clear the mark that a killed writer left, and make the file as long as its superblock says or more.

    The end-of-file address becomes the file's length, so that HDF5 allocates past all that was ever written.

    Raises:
        ValueError: If the file has no version 2 or 3 superblock.
    """
    superblock = read_superblock(path)
    if superblock is None:
        raise ValueError(f"{path}: expected an HDF5 file of the common format, found no version 3 superblock")
    descriptor = os.open(path, os.O_RDWR)
    try:
        end_of_file = max(superblock.end_of_file, os.fstat(descriptor).st_size)
        os.ftruncate(descriptor, end_of_file)
        write_superblock(descriptor, dataclasses.replace(superblock, flags=0, end_of_file=end_of_file))
    finally:
        os.close(descriptor)


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


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash (`hashlittle`, initial value 0), HDF5's metadata checksum.

    Source: http://burtleburtle.net/bob/c/lookup3.c, public domain.
    """
    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    if not data:
        return c
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    for start in range(0, len(words) - 3, 3):
        a, b, c = _mix(a + words[start], b + words[start + 1], c + words[start + 2])
    a, b, c = (x & 0xFFFFFFFF for x in (a + words[-3], b + words[-2], c + words[-1]))
    return _final(a, b, c)


def _rotate(x: int, bits: int) -> int:
    """32-bit left rotation."""
    x &= 0xFFFFFFFF
    return (x << bits | x >> 32 - bits) & 0xFFFFFFFF


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """lookup3's reversible mixing of three 32-bit words."""
    a, c = (a - c) ^ _rotate(c, 4), c + b
    b, a = (b - a) ^ _rotate(a, 6), a + c
    c, b = (c - b) ^ _rotate(b, 8), b + a
    a, c = (a - c) ^ _rotate(c, 16), c + b
    b, a = (b - a) ^ _rotate(a, 19), a + c
    c, b = (c - b) ^ _rotate(b, 4), b + a
    return a & 0xFFFFFFFF, b & 0xFFFFFFFF, c & 0xFFFFFFFF


def _final(a: int, b: int, c: int) -> int:
    """lookup3's final mixing; returns the hash."""
    c = (c ^ b) - _rotate(b, 14)
    a = (a ^ c) - _rotate(c, 11)
    b = (b ^ a) - _rotate(a, 25)
    c = (c ^ b) - _rotate(b, 16)
    a = (a ^ c) - _rotate(c, 4)
    b = (b ^ a) - _rotate(a, 14)
    c = (c ^ b) - _rotate(b, 24)
    return c & 0xFFFFFFFF
