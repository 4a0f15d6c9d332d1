"""Checksums of files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def file_sha256(path: Path, count: Callable[[int], object] | None = None) -> str:
    """SHA-256 of a file's bytes, 64 hex digits.

    Args:
        path: The file.
        count: Called with the bytes of each block that was read; what it raises ends the reading.
    """
    digest = hashlib.sha256()
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
            if count is not None:
                count(size)
    return digest.hexdigest()
