"""Which arrays a mesh or particle sample has, what they must be, and along which axis each of them grows.

A sample is a mapping from array names, those of the source shards, to numpy arrays. Every array belongs to
one axis; arrays of one axis have equally many rows, so that a store needs one table of offsets for each axis.

| axis | rows of one sample |
|---|---|
| node | nodes or particles (n) |
| cell | cells |
| edge | edges |
| nonzero | entries of the CSR matrix |
| row | n + 1, the row pointers of the CSR matrix |
| step | times x nodes, time first |
| sample | 1: a scalar of the sample |
| the array's own name | as many as it has: numbers of nodes, such as `boundary_nodes` |
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

Sample = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Required:
    """What a required array must be: axis (see above), shape in words, letters of numpy's kinds, numbers of
    axes, sizes of the last one (None for any); `folder` is its path in the layout of one group a sample.

    "step" arrays without times are on the nodes.
    """

    axis: str
    shape: str
    kinds: str = "iu"
    ndims: tuple[int, ...] = (1,)
    last: tuple[int, ...] | None = None
    folder: str = ""


@dataclass(frozen=True)
class Kind:
    """What a store holds, in a group of samples with some required arrays.

    `geometry` gives the number of nodes, on its second to last axis; `csr` names the row pointers and column
    indices of the CSR matrix.
    """

    name: str
    group: str
    geometry: str
    csr: tuple[str, str]
    arrays: Mapping[str, Required]

    @property
    def folders(self) -> dict[str, str]:
        """Array -> its path below a sample in the layout of one group a sample."""
        return {name: array.folder or name for name, array in self.arrays.items()}


_EDGES = Required("edge", "(edges, 2)", ndims=(2,), last=(2,))
_MOVING = Required("step", "(times, particles, d) or (particles, d)", "f", (2, 3))
MESH = Kind(
    name="mesh",
    group="mesh_poisson",
    geometry="coords",
    csr=("laplacian_indptr", "laplacian_indices"),
    arrays={
        "coords": Required("node", "(nodes, d)", "f", (2,)),
        "cells": Required("cell", "(cells, 3) or (cells, 4)", ndims=(2,), last=(3, 4)),
        "edges": _EDGES,
        "laplacian_data": Required("nonzero", "(entries,)", "f", folder="laplacian/data"),
        "laplacian_indices": Required("nonzero", "(entries,)", folder="laplacian/indices"),
        "laplacian_indptr": Required("row", "(nodes + 1,)", folder="laplacian/indptr"),
    },
)
PARTICLES = Kind(
    name="particles",
    group="particles_advect",
    geometry="positions",
    csr=("indptr", "indices"),
    arrays={
        "positions": _MOVING,
        "velocities": _MOVING,
        "indices": Required("nonzero", "(entries,)", folder="neighbors/indices"),
        "indptr": Required("row", "(particles + 1,)", folder="neighbors/indptr"),
        "edges": replace(_EDGES, folder="neighbors/edges"),
    },
)
KINDS = {kind.name: kind for kind in (MESH, PARTICLES)}

# Names that stores or items use for something else.
RESERVED = {"pos", "edge_index", "face", "laplacian", "batch", "ptr", "num_nodes", "neighbors", "offsets"}
RESERVED |= {"source", "coords", "cells", "edges"}


@dataclass(frozen=True)
class Column:
    """One array of a store: its axis, numpy's name of its type, and the shape of a row.

    The row of a "step" array lacks the times and the nodes.
    """

    axis: str
    dtype: str
    trailing: tuple[int, ...]


Schema = dict[str, Column]


def is_node_list(name: str, ndim: int) -> bool:
    """Whether integers of this name are numbers of nodes: `..._nodes`, or tuples `..._edges|faces|cells`.

    They are shifted in batches, and may be as many as they like.
    """
    return name.endswith("_nodes") or (ndim == 2 and name.endswith(("_edges", "_faces", "_cells")))


def describe(kind: Kind, arrays: Sample) -> Schema:
    """Axis, type and row shape of every array of a sample whose required arrays are sound.

    Further arrays are fields, by their leading dimensions: nodes, (times, nodes), edges, cells, or none for a
    scalar; or lists of nodes, by their names (`is_node_list`). A ValueError names all that fit no axis.
    """
    nodes = arrays[kind.geometry].shape[-2]
    times = len(arrays[kind.geometry]) if arrays[kind.geometry].ndim == 3 else None
    schema: Schema = {}
    reasons = []
    for name, array in arrays.items():
        if name in kind.arrays:
            axis = kind.arrays[name].axis
            axis = "node" if axis == "step" and array.ndim == 2 else axis
        else:
            try:
                axis = _field_axis(name, array, arrays, nodes, times)
            except ValueError as error:
                reasons.append(str(error))
                continue
        if axis == "step":
            times = len(array)
        lead = {"sample": 0, "step": 2}.get(axis, 1)
        schema[name] = Column(axis, array.dtype.name, tuple(array.shape[lead:]))
    if reasons:
        raise ValueError("; ".join(reasons))
    return dict(sorted(schema.items()))


def _field_axis(name: str, array: np.ndarray, arrays: Sample, nodes: int, times: int | None) -> str:
    """Axis of a further array; ValueError where it fits none, or two."""
    if name in RESERVED or not name.isidentifier():
        raise ValueError(f"array {name!r} cannot keep its name, which is taken or no identifier; rename it")
    shape = array.shape
    if not shape:
        return "sample"
    if array.dtype.kind in "iu" and is_node_list(name, array.ndim):
        return name
    sizes = {axis: len(arrays[key]) for key, axis in (("edges", "edge"), ("cells", "cell")) if key in arrays}
    rows = [axis for axis, size in sizes.items() if shape[0] == size]
    # Where there are as many edges as nodes, the name decides.
    if named := [axis for axis in rows if name.startswith(f"{axis}_")]:
        return named[0]
    over_time = len(shape) > 1 and shape[1] == nodes and times in (None, shape[0])
    fits = ["node"] * (shape[0] == nodes) + ["step"] * over_time or rows[:1]
    if len(fits) == 1:
        return fits[0]
    expected = [f"({nodes}, ...)", f"({times or 'times'}, {nodes}, ...)"]
    expected += [f"({size}, ...) as the {axis}s" for axis, size in sizes.items()]
    raise ValueError(
        f"array {name!r} has shape {shape}, expected one alone of {', '.join(expected)} or a scalar; leave "
        "it out, or call it ..._nodes if it holds numbers of nodes"
    )


def differences(expected: Schema, found: Schema) -> list[str]:
    """Return what keeps a sample out of a store of other samples, one phrase each."""
    now, there = (
        {name: f"{c.dtype} rows of shape {c.trailing} along {c.axis!r}" for name, c in schema.items()}
        for schema in (found, expected)
    )
    return [
        f"array {name!r} is {now.get(name, 'missing')}, earlier shards have {there.get(name, 'none')}"
        for name in there | now
        if now.get(name) != there.get(name)
    ]


def faults(
    kind: Kind, arrays: Sample, known: Collection[str] = ()
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return phrases for all that is wrong with a sample, and its arrays of right types and shapes.

    That the `known` arrays are missing is no fault.
    """
    reasons = [f"key {name!r} is missing" for name in kind.arrays if name not in arrays and name not in known]
    sound = dict(arrays)
    for name, expected in kind.arrays.items():
        if (array := arrays.get(name)) is None:
            continue
        last = expected.last is None or array.shape[-1:] in [(size,) for size in expected.last]
        # A matrix without entries is sound, a mesh without nodes is not.
        empty = expected.kinds == "f" and array.size == 0 and expected.axis != "nonzero"
        if array.dtype.kind not in expected.kinds:
            reasons.append(f"key {name!r} holds {array.dtype}, expected {word(name)}")
        elif array.ndim not in expected.ndims or not last or empty:
            reasons.append(f"key {name!r} has shape {array.shape}, expected {expected.shape}")
        else:
            continue
        del sound[name]
    return reasons + _value_reasons(kind, sound), sound


def word(name: str) -> str:
    """Return what an array holds, in words."""
    expected = {**MESH.arrays, **PARTICLES.arrays}.get(name)
    return "real numbers" if expected is None else "floats" if expected.kinds == "f" else "integers"


def _value_reasons(kind: Kind, arrays: Sample) -> list[str]:
    """Return what is wrong with the values of arrays whose types and shapes are sound."""
    reasons = [
        f"key {name!r} has {np.count_nonzero(~finite)} values that are not finite, the first at "
        f"{tuple(np.argwhere(~finite)[0].tolist())}"
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all()
    ]
    shapes = [arrays[name].shape for name in ("positions", "velocities") if name in arrays]
    if len(set(shapes)) > 1:
        reasons.append(f"key 'velocities' has shape {shapes[1]}, positions {shapes[0]}")
    if kind.geometry not in arrays:
        return reasons
    nodes = arrays[kind.geometry].shape[-2]
    pointer, column = kind.csr
    for name, array in arrays.items():
        counts_nodes = name in kind.arrays or is_node_list(name, array.ndim)
        if array.dtype.kind not in "iu" or not counts_nodes or name == pointer or not array.size:
            continue
        # Without a sign, what is negative is large: one look instead of two.
        if np.ascontiguousarray(array).view(f"u{array.itemsize}").max() >= nodes:
            wrong = (array < 0) | (array >= nodes)
            first = tuple(np.argwhere(wrong)[0].tolist())
            reasons.append(
                f"key {name!r} has {np.count_nonzero(wrong)} indices outside 0 to {nodes - 1}, the first is "
                f"{array[first]} at {first}"
            )
    sizes = {n: len(a) for n, a in arrays.items() if n in kind.arrays and kind.arrays[n].axis == "nonzero"}
    if len(set(sizes.values())) > 1:
        reasons.append(f"numbers of entries differ: {sizes}")
    if pointer not in arrays:
        return reasons
    indptr = arrays[pointer].astype(np.int64, copy=False)
    begin, end = (int(indptr[0]), int(indptr[-1])) if len(indptr) else (0, 0)
    falls = indptr[1:] < indptr[:-1]
    for is_wrong, text in (
        (len(indptr) != nodes + 1, f"has {len(indptr)} entries, expected {nodes + 1} for {nodes} nodes"),
        (begin != 0, f"begins with {begin}, expected 0"),
        (falls.any(), f"decreases after row {int(falls.argmax()) if len(falls) else 0}"),
        (end != sizes.get(column, end), f"ends with {end}, expected {sizes.get(column)} as in {column!r}"),
    ):
        if is_wrong:
            reasons.append(f"key {pointer!r} {text}")
    return reasons
