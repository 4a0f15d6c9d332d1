"""Chooses the compiled passes when numba is there, the numpy ones otherwise."""

from __future__ import annotations

from types import ModuleType

from solvers.py2d_turbulence import kernels_numpy


def best_kernels() -> ModuleType:
    """Return `kernels_numba` when numba works here (extra "fast"), else `kernels_numpy`."""
    try:
        from solvers.py2d_turbulence import kernels_numba
    except ImportError:  # not installed, or numba refuses the installed numpy
        return kernels_numpy
    return kernels_numba
