"""Reads a mesh or particle shard (.npz) and finds everything that is wrong with it; nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gust_torch.data.graphs.schema import Kind, Schema, describe, num_nodes

_NUMERIC = "biuf"


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


@dataclass(frozen=True)
class Shard:
    """A sound shard: its arrays under their names, and where they go."""

    arrays: Mapping[str, np.ndarray]
    schema: Schema


def read_shard(path: Path, kind: Kind) -> Shard:
    """Read and checks one shard.

    Args:
        path: The .npz file.
        kind: Mesh or particles.

    Raises:
        ValueError: Everything that is wrong with it, in one line.
    """
    arrays, unread = _load(path)
    reasons = [f"key {name!r} {reason}" for name, reason in unread.items()]
    reasons += [f"key {name!r} is missing" for name in kind.axes if name not in arrays and name not in unread]
    for name in kind.axes:
        if name in arrays and (reason := _type_reason(name, arrays[name])):
            reasons.append(reason)
            del arrays[name]
    reasons += _value_reasons(kind, arrays)
    schema: Schema = {}
    # Further arrays are recognized by the number of nodes; without it there is nothing to say about them.
    if kind.geometry in arrays:
        try:
            schema = describe(kind, arrays)
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError(f"{path}: {'; '.join(reasons)}; repair or remove the shard, or give --skip-bad")
    return Shard(arrays, schema)


def shard_keys(path: Path) -> set[str] | None:
    """Names of the arrays of a shard; None where the file cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return None


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the numeric arrays of a file, in this machine's byte order, and what is wrong with which others.

    Raises:
        ValueError: The file is no .npz archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: unreadable, {error}; copy the shard again, or give --skip-bad to go on without it"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    unread = {}
    with archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            try:
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
            except (
                ValueError,
                OSError,
                EOFError,
                zipfile.BadZipFile,
                zlib.error,
                NotImplementedError,
            ) as error:
                said = "an object array, which is never unpickled" if "Object arrays" in str(error) else error
                unread[name] = f"cannot be read: {said}"
                continue
            if array.dtype.kind not in _NUMERIC or array.dtype.itemsize > 8:
                unread[name] = f"holds {array.dtype}, expected {_word(name)}"
            else:
                arrays[name] = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    return arrays, unread


def _word(name: str) -> str:
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
    for name in kind.indices:
        if name != kind.csr[0] and name in arrays and (reason := _range_reason(name, arrays[name], nodes)):
            reasons.append(reason)
    return reasons + _csr_reasons(kind, arrays, nodes)


def _range_reason(name: str, array: np.ndarray, nodes: int) -> str:
    """Return indices that are no nodes; "" if there are none."""
    wrong = (array < 0) | (array >= nodes)
    if not wrong.any():
        return ""
    first = tuple(np.argwhere(wrong)[0].tolist())
    return (
        f"key {name!r} has {np.count_nonzero(wrong)} indices outside 0 to {nodes - 1}, the first is "
        f"{array[first]} at {first}"
    )


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
    indptr = arrays[pointer].astype(np.int64)
    if len(indptr) != nodes + 1:
        reasons.append(f"key {pointer!r} has {len(indptr)} entries, expected {nodes + 1} for {nodes} nodes")
    if len(indptr) and indptr[0] != 0:
        reasons.append(f"key {pointer!r} begins with {indptr[0]}, expected 0")
    if (falls := np.flatnonzero(np.diff(indptr) < 0)).size:
        reasons.append(f"key {pointer!r} decreases after row {falls[0]}, expected row pointers in order")
    if len(indptr) and column in entries and indptr[-1] != entries[column]:
        reasons.append(f"key {pointer!r} ends with {indptr[-1]}, expected {entries[column]} as in {column!r}")
    return reasons
