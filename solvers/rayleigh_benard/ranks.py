"""What MPI ranks have to agree on: results, errors and signals."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

T = TypeVar("T")


def on_root(comm: Any, action: Callable[[], T]) -> T | None:
    """Result of an action on rank 0, None elsewhere. Collective.

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
