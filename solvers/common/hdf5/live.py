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
SUPERBLOCK_BYTES = 48

# signature, version, offset size, length size, status flags, base, extension, end of file, root group; the
# checksum follows
_LAYOUT = struct.Struct("<8sBBBBQQQQ")

_MIN_AHEAD_BYTES = 4 << 20
_AHEAD_APPENDS = 8


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
        version, *others = dataclasses.astuple(self)
        body = _LAYOUT.pack(SIGNATURE, version, 8, 8, *others)
        return body + struct.pack("<I", lookup3(body))


def decode(data: bytes) -> Superblock | None:
    """Superblock from the first 48 bytes of a file, None where they are not a valid one of version 2 or 3."""
    if len(data) < SUPERBLOCK_BYTES:
        return None
    signature, version, offset_size, length_size, *others = _LAYOUT.unpack_from(data)
    superblock = Superblock(version, *others)
    known = signature == SIGNATURE and version in (2, 3) and (offset_size, length_size) == (8, 8)
    return superblock if known and superblock.encode() == data[:SUPERBLOCK_BYTES] else None


def read_superblock(path: str | os.PathLike[str]) -> Superblock | None:
    """Superblock of the file at `path`, None where it has none of version 2 or 3."""
    with Path(path).open("rb") as file:
        return decode(file.read(SUPERBLOCK_BYTES))


def release_file(path: str | os.PathLike[str]) -> None:
    """Clear the mark that a killed writer left, and make the file as long as its superblock says or more.

    The end-of-file address becomes the file's length, so that HDF5 allocates past all that was ever written.

    Raises:
        ValueError: If the file has no version 2 or 3 superblock.
    """
    superblock = read_superblock(path)
    if superblock is None:
        raise ValueError(f"{path}: expected an HDF5 file of the common format, found no version 3 superblock")
    with Path(path).open("r+b") as file:
        end_of_file = max(superblock.end_of_file, os.fstat(file.fileno()).st_size)
        file.truncate(end_of_file)
        file.write(dataclasses.replace(superblock, flags=0, end_of_file=end_of_file).encode())


class LiveSuperblock:
    """The superblock of a file that HDF5 has just opened for SWMR writing, under our control.

    The end-of-file address is kept ahead of the data, and the file's length ahead of that: both are raised
    before HDF5 writes there, so that nothing on disk ever lies past the address, and a program that looked
    at the length before it read the address does not take the file for truncated. The file grows sparsely,
    which takes no space.
    """

    def __init__(self, path: Path) -> None:
        superblock = read_superblock(path)
        assert superblock is not None  # HDF5 writes no older one in this mode
        self._superblock = dataclasses.replace(superblock, flags=0)
        self._descriptor = os.open(path, os.O_RDWR)
        self._reserved = 0

    def reserve(self, allocated: int, extra: int) -> None:
        """Make room for `extra` bytes after the `allocated` ones, and more, so that most calls do nothing.

        Raises:
            OSError: If the file cannot grow (a quota or a file size limit).
        """
        if allocated + extra <= self._reserved:
            return
        ahead = max(_MIN_AHEAD_BYTES, _AHEAD_APPENDS * extra)
        reserved = allocated + ahead
        if os.fstat(self._descriptor).st_size < reserved + ahead:
            os.ftruncate(self._descriptor, reserved + ahead)
        self._write(reserved)
        self._reserved = reserved

    def settle(self, allocated: int) -> None:
        """Give up what was reserved past `allocated`, before HDF5 flushes or closes the file as a whole.

        HDF5 then cuts the file off there, and it may do so before it writes its own superblock. A `reserve`
        after that takes the superblock over again.
        """
        self._write(allocated)
        self._reserved = 0

    def sync(self) -> None:
        """Ask the operating system to put all that was written on the disk (against power failure)."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file. HDF5 writes the superblock itself when it closes the file."""
        os.close(self._descriptor)

    def _write(self, end_of_file: int) -> None:
        """Overwrite the superblock by one system call."""
        os.pwrite(
            self._descriptor, dataclasses.replace(self._superblock, end_of_file=end_of_file).encode(), 0
        )


def trim(path: Path) -> None:
    """Cut off what `LiveSuperblock` reserved past the end of a file that HDF5 has closed."""
    superblock = read_superblock(path)
    if superblock is not None and superblock.end_of_file < path.stat().st_size:
        os.truncate(path, superblock.end_of_file)


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash (`hashlittle`, initial value 0) of at least a byte: HDF5's checksum.

    Source: http://burtleburtle.net/bob/c/lookup3.c, public domain. The three words change places after each
    step instead of being named anew in it.
    """
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    padded = data + bytes(-len(data) % 12)
    blocks = list(struct.iter_unpack("<III", padded))
    for x, y, z in blocks[:-1]:
        a, b, c = a + x, b + y, c + z
        for bits in (4, 6, 8, 16, 19, 4):
            a, b, c = b, c + b, ((a - c) ^ _rotate(c, bits))
    a, b, c = (word + more for word, more in zip((a, b, c), blocks[-1], strict=True))
    for bits in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, (c ^ b) - _rotate(b, bits), a
    return b & _WORD


_WORD = 0xFFFFFFFF


def _rotate(x: int, bits: int) -> int:
    """32-bit left rotation."""
    x &= _WORD
    return (x << bits | x >> 32 - bits) & _WORD
