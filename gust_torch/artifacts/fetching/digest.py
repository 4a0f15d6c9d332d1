"""sha256 of files: of whole ones, and of one that is still being written in ranges."""

import hashlib
import os
import threading
from collections.abc import Container

from gust_torch.artifacts.fetching.watch import Watch

_BLOCK_BYTES = 1 << 20


class RangesDigest:
    """Digest of a file whose ranges are written in any order; hashes as far as it is complete from its start.

    The bytes are read back from the file, most often while they are still in memory, so that a finished
    download need not be read again and ranges of an earlier process count as well.
    """

    def __init__(self, file: int, size: int, range_bytes: int) -> None:
        """Start at the beginning.

        Args:
            file: Descriptor for reading.
            size: Bytes of the whole.
            range_bytes: Bytes of each range but the last.
        """
        self._file, self._size, self._range_bytes = file, size, range_bytes
        self._digest = hashlib.sha256()
        self._next = 0
        self._lock = threading.Lock()

    def advance(self, finished: Container[int], watch: Watch) -> None:
        """Hashes the ranges that are finished now, unless another thread is just doing so.

        Raises:
            Stopped: The work is to end.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            while self._next in finished:
                start = self._next * self._range_bytes
                stop = min(start + self._range_bytes, self._size)
                for position in range(start, stop, _BLOCK_BYTES):
                    watch.check()
                    self._digest.update(os.pread(self._file, min(_BLOCK_BYTES, stop - position), position))
                self._next += 1
        finally:
            self._lock.release()

    def hexdigest(self) -> str:
        """Hex digest of what was hashed: of the whole file once all ranges are finished and hashed."""
        return self._digest.hexdigest()
