"""Memory for batches, taken again once nobody uses it."""

import sys
import threading

import numpy as np

MAX_BUFFERS = 4


class BufferPool:
    """Hands out arrays and takes those again that nothing outside the pool refers to.

    A new array costs a page fault for each 4 KB that is written to it, which for frames in the page cache is
    as much as the read itself. Whoever holds a batch, or a view of it, also holds a reference to its array.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array (shape) float32 with any content, whose memory nobody else uses."""
        with self._lock:
            for i in range(len(self._arrays)):
                if _references(self._arrays, i) == _UNUSED and self._arrays[i].shape == shape:
                    return self._arrays[i]
            array = np.empty(shape, np.float32)
            self._arrays = [*self._arrays[-(MAX_BUFFERS - 1) :], array]
            return array

    def __reduce__(self) -> tuple[type["BufferPool"], tuple[()]]:
        """Copy and worker processes start with an empty pool."""
        return BufferPool, ()


def _references(arrays: list[np.ndarray], i: int) -> int:
    """Return references to an array of a list, with those that counting itself makes."""
    return sys.getrefcount(arrays[i])


# What python counts for an array that only its list knows; it differs between versions.
_UNUSED = _references([np.empty(0)], 0)
