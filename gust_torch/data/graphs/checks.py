"""What the arrays of a mesh or particle sample must be: for the converter, and for readers of stores."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from gust_torch.data.graphs.schema import Kind, is_node_list, num_nodes


@dataclass(frozen=True)
class _Expected:
    """What a required array must be: dtype kinds in letters and words, numbers of axes, sizes of the last."""

    kinds: str
    word: str
    ndims: tuple[int, ...]
    last: tuple[int, ...] | None
    shape: str


_FLOATS, _INTEGERS = ("f", "floats"), ("iu", "integers")
_EXPECTED = {
    "coords": _Expected(*_FLOATS, (2,), None, "(nodes, d)"),
    "cells": _Expected(*_INTEGERS, (2,), (3, 4), "(cells, 3) or (cells, 4)"),
    "edges": _Expected(*_INTEGERS, (2,), (2,), "(edges, 2)"),
    "laplacian_data": _Expected(*_FLOATS, (1,), None, "(entries,)"),
    "laplacian_indices": _Expected(*_INTEGERS, (1,), None, "(entries,)"),
    "laplacian_indptr": _Expected(*_INTEGERS, (1,), None, "(nodes + 1,)"),
    "positions": _Expected(*_FLOATS, (2, 3), None, "(times, particles, d) or (particles, d)"),
    "velocities": _Expected(*_FLOATS, (2, 3), None, "(times, particles, d) or (particles, d)"),
    "indices": _Expected(*_INTEGERS, (1,), None, "(entries,)"),
    "indptr": _Expected(*_INTEGERS, (1,), None, "(particles + 1,)"),
}


def faults(
    kind: Kind, arrays: Mapping[str, np.ndarray], known: Collection[str] = ()
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Find everything that is wrong with a sample.

    Args:
        kind: Mesh or particles.
        arrays: Its arrays under the names of the source.
        known: Arrays that are not there, which is known.

    Returns:
        A phrase for each fault, and the arrays without those of a wrong type or shape.
    """
    reasons = [f"key {name!r} is missing" for name in kind.axes if name not in arrays and name not in known]
    sound = dict(arrays)
    for name in kind.axes:
        if name in arrays and (reason := _type_reason(name, arrays[name])):
            reasons.append(reason)
            del sound[name]
    return reasons + _value_reasons(kind, sound), sound


def word(name: str) -> str:
    """Return what an array holds, in words."""
    return _EXPECTED[name].word if name in _EXPECTED else "real numbers"


def _type_reason(name: str, array: np.ndarray) -> str:
    """Return what is wrong with the type or the shape of a required array; "" if nothing."""
    expected = _EXPECTED[name]
    if array.dtype.kind not in expected.kinds:
        return f"key {name!r} holds {array.dtype}, expected {expected.word}"
    fits = array.ndim in expected.ndims and (expected.last is None or array.shape[-1] in expected.last)
    if not fits or (array.dtype.kind == "f" and array.size == 0 and "data" not in name):
        return f"key {name!r} has shape {array.shape}, expected {expected.shape}"
    return ""


def _value_reasons(kind: Kind, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return what is wrong with the values of arrays whose types and shapes are sound."""
    reasons = [
        f"key {name!r} has {np.count_nonzero(~finite)} values that are not finite, the first at "
        f"{tuple(np.argwhere(~finite)[0].tolist())}"
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all()
    ]
    shapes = {name: arrays[name].shape for name in ("positions", "velocities") if name in arrays}
    if len(set(shapes.values())) > 1:
        reasons.append(f"key 'velocities' has shape {shapes['velocities']}, positions {shapes['positions']}")
    if kind.geometry not in arrays:
        return reasons
    nodes = num_nodes(kind, arrays)
    for name, array in arrays.items():
        is_list = name not in kind.axes and array.dtype.kind in "iu" and is_node_list(name, array.ndim)
        if is_list or (name in kind.indices and name != kind.csr[0]):
            reasons += _range_reasons(name, array, nodes)
    return reasons + _csr_reasons(kind, arrays, nodes)


def _range_reasons(name: str, array: np.ndarray, nodes: int) -> list[str]:
    """Return indices that are no nodes."""
    # Without a sign, what is negative is large: one look instead of two.
    if not array.size or np.ascontiguousarray(array).view(f"u{array.itemsize}").max() < nodes:
        return []
    wrong = (array < 0) | (array >= nodes)
    first = tuple(np.argwhere(wrong)[0].tolist())
    return [
        f"key {name!r} has {np.count_nonzero(wrong)} indices outside 0 to {nodes - 1}, the first is "
        f"{array[first]} at {first}"
    ]


def _csr_reasons(kind: Kind, arrays: Mapping[str, np.ndarray], nodes: int) -> list[str]:
    """Return what is wrong with the row pointers of the CSR matrix, which has a row for each node."""
    pointer, column = kind.csr
    reasons = []
    entries = {
        name: len(arrays[name]) for name, axis in kind.axes.items() if axis == "nonzero" and name in arrays
    }
    if len(set(entries.values())) > 1:
        sizes = ", ".join(f"{name!r} {size}" for name, size in entries.items())
        reasons.append(f"numbers of entries differ: {sizes}")
    if pointer not in arrays:
        return reasons
    indptr = arrays[pointer].astype(np.int64, copy=False)
    if len(indptr) != nodes + 1:
        reasons.append(f"key {pointer!r} has {len(indptr)} entries, expected {nodes + 1} for {nodes} nodes")
    if len(indptr) and indptr[0] != 0:
        reasons.append(f"key {pointer!r} begins with {indptr[0]}, expected 0")
    if (indptr[1:] < indptr[:-1]).any():
        row = int(np.argmax(indptr[1:] < indptr[:-1]))
        reasons.append(f"key {pointer!r} decreases after row {row}, expected row pointers in order")
    if len(indptr) and column in entries and indptr[-1] != entries[column]:
        reasons.append(f"key {pointer!r} ends with {indptr[-1]}, expected {entries[column]} as in {column!r}")
    return reasons
