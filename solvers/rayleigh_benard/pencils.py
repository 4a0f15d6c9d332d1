"""All Fourier modes of a rank as one linear system.

Dedalus solves one small system ("pencil") for each horizontal wavenumber, and its time steppers loop over
them in Python: gather, two matrix products, solve, scatter, each some ten microseconds. At 256x64 this loop
takes longer than the transforms. On one rank the solver option `matrix_coupling` joins all pencils; it needs
the whole x axis on a rank, so with several ranks the joining is done here, for the pencils of each rank.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse


class StackedPencils:
    """Block-diagonal union of pencils, with what Dedalus's time steppers use of one.

    Attributes:
        M_min: mass matrix, CSR (n, n).
        L_min: stiffness matrix, CSR (n, n).
        LHS: matrix of the current time step; the steppers replace it and store the factors beside it.
        LHS_solver: factors of the current step, multistep schemes.
        LHS_solvers: factors of every stage, one-step schemes.
        size: n.
        subsystems: the pencils' stand-in, one column of unknowns.
    """

    def __init__(self, pencils: Sequence[Any], variables: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Join the pencils (Dedalus's subproblems of this rank, matrices built).

        Args:
            pencils: what to join.
            variables: fields of the state, in the order of the problem.
            outputs: fields of the explicit right-hand side, in the order of the equations.
        """
        self.M_min = _stack(pencils, "M_min")
        self.L_min = _stack(pencils, "L_min")
        self.LHS = self.M_min
        self.LHS_solver: Any = None
        self.LHS_solvers: list[Any] = []
        self.size: int = self.M_min.shape[0]
        self.subsystems = (self,)
        select = _selection(pencils, variables)
        self._compress_inputs = _compact(_stack(pencils, "pre_right_pinv") @ select)
        self._expand_inputs = _compact(select.T @ _stack(pencils, "pre_right"))
        self._compress_outputs = _compact(_stack(pencils, "pre_left") @ _selection(pencils, outputs))

    def gather_inputs(self, fields: Sequence[Any], out: np.ndarray | None = None) -> np.ndarray:
        """Unknowns (n, 1) from the state's coefficients."""
        return _store(self._compress_inputs @ _ravel(fields), out)

    def gather_outputs(self, fields: Sequence[Any], out: np.ndarray | None = None) -> np.ndarray:
        """Right-hand side (n, 1) from the coefficients of the equations."""
        return _store(self._compress_outputs @ _ravel(fields), out)

    def scatter_inputs(self, data: np.ndarray, fields: Sequence[Any]) -> None:
        """Put the unknowns (n, 1) back into the state's coefficients."""
        flat = self._expand_inputs @ data[:, 0]
        start = 0
        for field in fields:
            stop = start + field.data.size
            np.copyto(field.data, flat[start:stop].reshape(field.data.shape))
            start = stop


def stack_pencils(solver: Any) -> None:
    """Replace the pencils of a Dedalus initial value solver by their union, before its first step."""
    pencils = [pencil for pencil in solver.subproblems if pencil.size]
    solver.subproblems = (StackedPencils(pencils, solver.state, solver.F),) if pencils else ()
    solver.timestepper = type(solver.timestepper)(solver)


def _stack(pencils: Sequence[Any], name: str) -> sparse.csr_matrix:
    """Block-diagonal matrix of one attribute of the pencils."""
    return sparse.block_diag([getattr(pencil, name) for pencil in pencils], format="csr")


def _selection(pencils: Sequence[Any], fields: Sequence[Any]) -> sparse.csr_matrix:
    """Matrix that picks, from the ravelled coefficients of all fields, those of each pencil in turn."""
    sizes = [field.data.size for field in fields]
    starts = np.cumsum([0, *sizes])
    positions = [
        np.arange(start, start + size).reshape(field.data.shape)
        for field, start, size in zip(fields, starts, sizes, strict=False)
    ]
    columns = np.concatenate(
        [
            position[pencil.field_slices(field)].ravel()
            for pencil in pencils
            for field, position in zip(fields, positions, strict=True)
            if pencil.field_size(field)
        ]
    )
    rows = np.arange(len(columns))
    return sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(columns), starts[-1]))


def _compact(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """CSR with sorted, unique entries."""
    matrix = matrix.tocsr()
    matrix.sum_duplicates()
    return matrix


def _ravel(fields: Sequence[Any]) -> np.ndarray:
    """Coefficients of all fields, one after the other."""
    return np.concatenate([field.data.ravel() for field in fields])


def _store(values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return the column `values`, in `out` where given."""
    column = values[:, None]
    if out is None:
        return column
    np.copyto(out, column)
    return out
