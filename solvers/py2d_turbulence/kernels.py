"""Chooses the compiled passes when numba is there, the numpy ones otherwise."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from solvers.py2d_turbulence import kernels_numpy


def best_kernels() -> ModuleType:
    """Returns `kernels_numba` when numba is installed (extra "fast"), else `kernels_numpy`."""
    if importlib.util.find_spec("numba") is None:
        return kernels_numpy
    from solvers.py2d_turbulence import kernels_numba

    return kernels_numba
