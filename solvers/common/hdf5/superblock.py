"""The first 48 bytes of an HDF5 file: its superblock (version 2 and 3), read and rewritten in place.

HDF5 marks a file that is open for writing in the superblock's status byte and refuses to open a file whose
writer died without clearing it. Our writer keeps every other byte of the file consistent at all times, so it
clears the mark itself while it writes. Layout: HDF5 File Format Specification 3.0, section II.A "Disk
Format: Level 0A".
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
