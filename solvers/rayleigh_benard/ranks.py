"""What MPI ranks have to agree on: results, errors and signals."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

T = TypeVar("T")


def on_root(comm: Any, action: Callable[[], T]) -> T | None:
    """Return the result of an action on rank 0, None elsewhere. Collective.

    Raises:
        ValueError: If the action raised it, then on every rank.
        OSError: Likewise.
    """
    result: T | None = None
    error: ValueError | OSError | None = None
    if comm.rank == 0:
        try:
            result = action()
        except (ValueError, OSError) as caught:
            error = caught
    error = comm.bcast(error)
    if error is not None:
        raise error
    return result


def largest(comm: Any, number: int) -> int:
    """Maximum over the ranks. Collective."""
    if comm.size == 1:
        return number
    message = np.array([number])
    comm.Allreduce(MPI.IN_PLACE, message, op=MPI.MAX)
    return int(message[0])


def abort_on_surprise(comm: Any) -> None:
    """Let an exception that nothing catches end all ranks: the others would wait for this one for ever."""
    if comm.size == 1:
        return
    report = sys.excepthook

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(kind, error, trace)
        sys.stderr.flush()
        comm.Abort(1)

    sys.excepthook = end
