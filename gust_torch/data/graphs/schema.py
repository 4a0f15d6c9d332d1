"""Which arrays a mesh or particle sample has, and along which axis each of them grows.

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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Sample = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """What a store holds.

    Attributes:
        name: "mesh" or "particles".
        group: Group that holds the samples.
        axes: Required array -> its axis. Positions and velocities are "step" when they have a time axis.
        geometry: The array that gives the number of nodes, on its second to last axis.
        indices: Required arrays of node indices or row pointers.
        csr: Names of the row pointers and column indices of the CSR matrix.
        folders: Arrays of the one-group-a-sample layout: name -> path below the sample.
    """

    name: str
    group: str
    axes: Mapping[str, str]
    geometry: str
    indices: tuple[str, ...]
    csr: tuple[str, str]
    folders: Mapping[str, str]


MESH = Kind(
    name="mesh",
    group="mesh_poisson",
    axes={
        "coords": "node",
        "cells": "cell",
        "edges": "edge",
        "laplacian_data": "nonzero",
        "laplacian_indices": "nonzero",
        "laplacian_indptr": "row",
    },
    geometry="coords",
    indices=("cells", "edges", "laplacian_indices", "laplacian_indptr"),
    csr=("laplacian_indptr", "laplacian_indices"),
    folders={
        "coords": "coords",
        "cells": "cells",
        "edges": "edges",
        "laplacian_data": "laplacian/data",
        "laplacian_indices": "laplacian/indices",
        "laplacian_indptr": "laplacian/indptr",
    },
)
PARTICLES = Kind(
    name="particles",
    group="particles_advect",
    axes={
        "positions": "step",
        "velocities": "step",
        "indices": "nonzero",
        "indptr": "row",
        "edges": "edge",
    },
    geometry="positions",
    indices=("indices", "indptr", "edges"),
    csr=("indptr", "indices"),
    folders={
        "positions": "positions",
        "velocities": "velocities",
        "indices": "neighbors/indices",
        "indptr": "neighbors/indptr",
        "edges": "neighbors/edges",
    },
)
KINDS = {kind.name: kind for kind in (MESH, PARTICLES)}

# Names that stores or items use for something else.
RESERVED = frozenset(
    {"pos", "edge_index", "face", "laplacian", "batch", "ptr", "num_nodes", "neighbors", "offsets", "source"}
    | {"coords", "cells", "edges"}
)


@dataclass(frozen=True)
class Column:
    """One array of a store.

    Attributes:
        axis: See the table above.
        dtype: numpy name, such as "float32".
        trailing: Shape of one row; for "step" arrays without time and nodes.
    """

    axis: str
    dtype: str
    trailing: tuple[int, ...]


Schema = dict[str, Column]


def num_nodes(kind: Kind, arrays: Sample) -> int:
    """Nodes or particles of a sample."""
    return int(arrays[kind.geometry].shape[-2])


def is_node_list(name: str, ndim: int) -> bool:
    """Whether integers of this name are numbers of nodes: `..._nodes`, or tuples `..._edges|faces|cells`.

    They are shifted in batches, and may be as many as they like.
    """
    return name.endswith("_nodes") or (ndim == 2 and name.endswith(("_edges", "_faces", "_cells")))


def describe(kind: Kind, arrays: Sample) -> Schema:
    """Axis, type and row shape of every array of a sample whose required arrays are sound.

    Further arrays are fields, by their leading dimensions: nodes, (times, nodes), edges, cells, or none for a
    scalar; or lists of nodes, by their names (`is_node_list`).

    Raises:
        ValueError: Every array that fits no axis or whose name is taken, in one line without the file.
    """
    nodes = num_nodes(kind, arrays)
    times = len(arrays[kind.geometry]) if arrays[kind.geometry].ndim == 3 else None
    schema: Schema = {}
    reasons = []
    for name, array in arrays.items():
        try:
            axis = _required_axis(kind, name, array) or _field_axis(name, array, arrays, nodes, times)
        except ValueError as error:
            reasons.append(str(error))
            continue
        if axis == "step" and times is None:
            times = len(array)
        lead = {"sample": 0, "step": 2}.get(axis, 1)
        schema[name] = Column(axis, array.dtype.name, tuple(array.shape[lead:]))
    if reasons:
        raise ValueError("; ".join(reasons))
    return dict(sorted(schema.items()))


def _required_axis(kind: Kind, name: str, array: np.ndarray) -> str | None:
    axis = kind.axes.get(name)
    return "node" if axis == "step" and array.ndim == 2 else axis


def _field_axis(name: str, array: np.ndarray, arrays: Sample, nodes: int, times: int | None) -> str:
    """Axis of a further array.

    Raises:
        ValueError: It fits none, or two.
    """
    if name in RESERVED or not name.isidentifier():
        raise ValueError(
            f"array {name!r} cannot keep its name, which is taken or not an identifier; rename it"
        )
    shape = array.shape
    if not shape:
        return "sample"
    if array.dtype.kind in "iu" and is_node_list(name, array.ndim):
        return name
    sizes = {axis: len(arrays[key]) for key, axis in (("edges", "edge"), ("cells", "cell")) if key in arrays}
    for axis, size in sizes.items():
        # Where there are as many edges as nodes, the name decides.
        if name.startswith(f"{axis}_") and shape[0] == size:
            return axis
    on_nodes = shape[0] == nodes
    over_time = len(shape) > 1 and shape[1] == nodes and times in (None, shape[0])
    if on_nodes and over_time:
        raise ValueError(
            f"array {name!r} of shape {shape} may be {nodes} nodes or {shape[0]} times by {nodes} nodes; "
            "give it a shape that fits only one of them"
        )
    if on_nodes or over_time:
        return "node" if on_nodes else "step"
    for axis, size in sizes.items():
        if shape[0] == size:
            return axis
    expected = [f"({nodes}, ...)", f"({'times' if times is None else times}, {nodes}, ...)"]
    expected += [f"({size}, ...) as the {axis}s" for axis, size in sizes.items()]
    raise ValueError(
        f"array {name!r} has shape {shape}, expected {', '.join(expected)} or a scalar; leave it out, or "
        "call it ..._nodes if it holds numbers of nodes"
    )


def differences(expected: Schema, found: Schema) -> list[str]:
    """Return what keeps a sample out of a store of other samples, one phrase each."""
    phrases = [f"array {name!r} is missing, earlier shards have it" for name in expected if name not in found]
    phrases += [f"array {name!r} is new, earlier shards lack it" for name in found if name not in expected]
    for name, column in expected.items():
        other = found.get(name, column)
        if other != column:
            phrases.append(f"array {name!r} is {_words(other)}, earlier shards have {_words(column)}")
    return phrases


def _words(column: Column) -> str:
    return f"{column.dtype} rows of shape {column.trailing} along {column.axis!r}"


def to_rows(array: np.ndarray, axis: str) -> np.ndarray:
    """Return an array of a sample as rows of its axis."""
    if axis == "sample":
        return array.reshape(1)
    return array.reshape(-1, *array.shape[2:]) if axis == "step" else array
