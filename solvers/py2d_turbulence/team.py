"""A few threads that march in step. The work itself (FFT plans, compiled loops) runs without the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def available_cores() -> int:
    """Return the number of cores that this process may use (honors taskset, SLURM and cgroup cpusets)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Team:
    """`size` threads, the caller's among them, that run one function together.

    Args:
        size: number of threads, at least 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a team needs at least 1 thread, got {size}; use --workers 1 or more")
        self.size = size
        self._barrier = threading.Barrier(size)
        self._pool = ThreadPoolExecutor(size - 1) if size > 1 else None

    def wait(self) -> None:
        """Return when every member has called it. To be called inside `run` only."""
        if self._pool is not None:
            self._barrier.wait()

    def run(self, function: Callable[[int], None]) -> None:
        """Run `function(rank)` on every member and return when all are done; raise what one raised."""
        if self._pool is None:
            function(0)
            return
        members = [self._pool.submit(self._guarded, function, rank) for rank in range(1, self.size)]
        try:
            self._guarded(function, 0)
        except threading.BrokenBarrierError:
            pass  # another member failed: its error is raised below
        finally:
            errors = [member.exception() for member in members]
            self._barrier.reset()
        for error in errors:
            if error is not None and not isinstance(error, threading.BrokenBarrierError):
                raise error

    def _guarded(self, function: Callable[[int], None], rank: int) -> None:
        try:
            function(rank)
        except BaseException:
            self._barrier.abort()  # frees the members that wait for this one
            raise
