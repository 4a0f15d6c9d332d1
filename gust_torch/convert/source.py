"""One source file: what it holds, checked against its family, and its frames, in blocks of bounded size."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from gust_torch.convert.families import Array, Family, refuse_3d
from gust_torch.convert.header import (
    AGAIN,
    AXES,
    Grid,
    check_stored,
    field_dataset,
    find_parameters,
    name_parameters,
    place,
    read_config,
    read_grid,
    read_numbers,
    reading,
    sample_nodes,
)
from gust_torch.convert.ups import ups_form, ups_parameters
from solvers.common.hdf5.reader import open_hdf5
from solvers.common.hdf5.structure import fill_values

logger = logging.getLogger(__name__)

# Large enough that per-call costs vanish, small enough that a handful of copies stay far below 500 MB.
BLOCK_BYTES = 32 << 20
# A block may grow up to this where smaller ones would decompress the same chunks again and again.
MAX_BLOCK_BYTES = 96 << 20

Span = tuple[slice, slice]
"""Trajectories and times; only single trajectories are cut in time."""
Reader = Callable[[slice, slice], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Source:
    """One file of a family, checked.

    Attributes:
        name: How outputs record it: relative to the raw root, with forward slashes.
        samples: Key of each trajectory in the file: its index along the sample axis, or its group's name.
        shapes: field -> shape of one frame, (x, y) or (x, y, c).
        times: (n, t) float64, times of the frames.
        parameters: name -> (n,) float64.
        dtype: Type of the fields upstream; float64 is rounded to float32.
        config: YAML text of the first trajectory's config, "" where upstream stores none.
        frame_bytes: Bytes of one frame of all fields, upstream or as float32, whichever is more.
        chunk: (trajectories, times) that one chunk of the file covers; (1, 1) where it is not chunked.
    """

    path: Path
    name: str
    family: Family
    samples: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    grid: Grid
    times: np.ndarray
    parameters: Mapping[str, np.ndarray]
    dtype: str
    config: str
    frame_bytes: int
    chunk: tuple[int, int]


def describe_source(path: Path, family: Family, *, max_samples: int | None = None, name: str = "") -> Source:
    """Look up headers, coordinates, times and parameters of one file, or of its first `max_samples`.

    Raises:
        ValueError: Anything that is not as the family has it, with file, key and remedy.
    """
    refuse_3d(path.name)
    with reading(path), open_hdf5(path) as file:
        if "fields" in file:
            raise ValueError(f"{path} is in the common format (/fields), nothing to convert; leave it out")
        ups = ups_form(family, file)
        family = ups or family
        nodes = sample_nodes(file, family, max_samples)
        datasets = [(array, field_dataset(node, array)) for node in nodes for array in family.arrays]
        first = datasets[: len(family.arrays)]
        sizes = _common_sizes(datasets)
        _warn_of_extras(nodes[0], family)
        num = len(nodes) if family.groups else min(sizes["n"], max_samples or sizes["n"])
        times = _times(nodes, family, num, sizes.get("t", 1), _used_frames(file, sizes.get("t", 1)))
        used = {"n": num, "t": times.shape[1]}
        for array, dataset in datasets:
            lengths = zip(array.axes, dataset.shape, strict=True)
            check_stored(dataset, [used.get(axis, size) for axis, size in lengths])
        configs = [read_config(node) for node in nodes]
        points = [sizes[axis] for axis in "xy" if axis in sizes]
        grid = read_grid(nodes, family, points, configs[0][1], path)
        parameters = ups_parameters(file, family, sizes["n"]) if ups else {}
        rows = [
            find_parameters(
                [each for each in family.parameters if each not in parameters],
                {"attribute": node.attrs, "config": config, "file name": name_parameters(path)},
                place(node),
                required=ups is None,
            )
            for node, (_, config) in zip(nodes, configs, strict=True)
        ]
        parameters |= {each: np.array([row[each] for row in rows]) for each in rows[0]}
        frames = [(array.fields, _frame(array, each), max(4, each.dtype.itemsize)) for array, each in first]
        return Source(
            path=path,
            name=name or path.name,
            family=family,
            samples=tuple(node.name[1:] for node in nodes) if family.groups else tuple(map(str, range(num))),
            shapes={
                field: shape[: 2 if fields[1:] else 3] for fields, shape, _ in frames for field in fields
            },
            grid=grid,
            times=np.broadcast_to(times, (num, times.shape[1])),
            parameters={each: np.resize(column, num) for each, column in parameters.items()},
            dtype=max(dataset.dtype.name for _, dataset in first),
            config=configs[0][0],
            frame_bytes=sum(math.prod(shape) * itemsize for _, shape, itemsize in frames),
            chunk=(_chunk(first, "n"), _chunk(first, "t")),
        )


def _frame(array: Array, dataset: h5py.Dataset) -> tuple[int, ...]:
    """Shape (x, y[, c]) of a frame."""
    sizes = dict(zip(array.axes, dataset.shape, strict=True))
    return (sizes["x"], sizes.get("y", 1), *(sizes[axis] for axis in "c" if axis in sizes))


def _chunk(datasets: Sequence[tuple[Array, h5py.Dataset]], axis: str) -> int:
    """Largest chunk over the arrays along one axis."""
    chunks = [(array.axes, dataset.chunks) for array, dataset in datasets if dataset.chunks]
    return max((shape[axes.index(axis)] for axes, shape in chunks if axis in axes), default=1)


def _common_sizes(datasets: Sequence[tuple[Array, h5py.Dataset]]) -> dict[str, int]:
    """Axis letter -> length, equal over all arrays of all groups; "c KEY" -> components of array KEY."""
    common = {"1": 1}
    for array, dataset in datasets:
        if len(array.fields) > 1:
            common[f"c {array.key}"] = len(array.fields)
        for axis, size in zip(array.axes, dataset.shape, strict=True):
            expected = common.setdefault(f"c {array.key}" if axis == "c" else axis, max(size, 1))
            if size != expected:
                found = f"{size} {AXES.get(axis, 'entries')}, expected {expected} as elsewhere in the file"
                raise ValueError(f"{place(dataset)} of shape {dataset.shape} has {found}; {AGAIN}")
    return common


def _used_frames(file: h5py.File, num_frames: int) -> int:
    """Frames up to `latestIndex`, after which a killed run leaves zeros; all where there is no such mark."""
    mark = np.asarray(file.attrs.get("latestIndex", num_frames - 1))
    if mark.size != 1 or mark.dtype.kind not in "iu" or not 0 <= mark.item() < num_frames:
        raise ValueError(
            f"{file.filename}: attribute 'latestIndex' is {mark.tolist()}, expected 0 to {num_frames - 1}; "
            "the run wrote no usable frames: leave the file out"
        )
    used = int(mark.item()) + 1
    if used < num_frames:
        logger.warning(
            "%s: the run stopped early (latestIndex); used frames 0 to %d", file.filename, used - 1
        )
    return used


def _times(nodes: Sequence[h5py.Group], family: Family, num: int, num_frames: int, used: int) -> np.ndarray:
    """(n or 1, used) float64. Upstream often stores one time more than there are frames, which is dropped."""
    if not family.time_key:
        return np.arange(used, dtype=np.float64)[None]
    rows = []
    for node in nodes:
        times = np.atleast_2d(read_numbers(node, family.time_key))[:num]
        where = place(node, family.time_key)
        if len(times) not in (1, num) or times.shape[1] not in (num_frames, num_frames + 1):
            raise ValueError(
                f"{where} has {times.shape} times, expected {num_frames} or {num_frames + 1} times; {AGAIN}"
            )
        rows.append(times[:, :used])
        if not (np.isfinite(rows[-1]).all() and (np.diff(rows[-1]) > 0).all()):
            raise ValueError(f"{where} is not finite and increasing; {AGAIN}")
    return np.concatenate(rows)


def _warn_of_extras(node: h5py.Group, family: Family) -> None:
    """Say which arrays of the file are not converted; nothing is left out silently."""
    known = {*(array.key for array in family.arrays), *family.coordinates, family.time_key}
    extras = [key for key, item in node.items() if isinstance(item, h5py.Dataset) and item.ndim > 1]
    if left := ", ".join(key for key in extras if key not in known):
        logger.warning("%s: not part of %s, left out: %s", node.file.filename, family.name, left)


def plan_spans(source: Source, block_bytes: int = BLOCK_BYTES) -> list[Span]:
    """Cut a source into spans of about `block_bytes`, on chunk borders where that is possible.

    Whole trajectories as long as one fits, else pieces of one: outputs hold each trajectory in one piece.
    """
    num, num_frames = source.times.shape
    trajectory_bytes = num_frames * source.frame_bytes
    chunk_n, chunk_t = source.chunk
    if trajectory_bytes <= block_bytes or 1 < chunk_n <= MAX_BLOCK_BYTES // trajectory_bytes:
        return [(n, slice(0, num_frames)) for n in cut(num, trajectory_bytes, chunk_n, block_bytes)]
    times = cut(num_frames, source.frame_bytes, chunk_t, block_bytes)
    return [(slice(index, index + 1), t) for index in range(num) for t in times]


def cut(total: int, unit_bytes: int, chunk: int, block_bytes: int = BLOCK_BYTES) -> list[slice]:
    """Cut `total` units into blocks of whole chunks, unless even one is too large to be read at once."""
    step = max(1, block_bytes // unit_bytes)
    if step >= chunk:
        step -= step % chunk
    elif chunk * unit_bytes <= MAX_BLOCK_BYTES:
        step = chunk
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


@contextmanager
def open_reader(source: Source) -> Iterator[Reader]:
    """Open a source and yield what reads trajectories and times of it as name -> (n, t, x, y[, c]) float32.

    Raises:
        ValueError: Data cannot be read, or hold NaN, Inf or values beyond float32; with the position.
    """
    with open_hdf5(source.path) as file:
        with reading(source.path):
            nodes = sample_nodes(file, source.family, len(source.samples))
        yield partial(_read, source, nodes)


def _read(source: Source, nodes: Sequence[h5py.Group], n: slice, t: slice) -> dict[str, np.ndarray]:
    fields: dict[str, np.ndarray] = {}
    for array in source.family.arrays:
        values = _read_array(array, nodes, n, t)
        parts = np.moveaxis(values, -1, 0) if len(array.fields) > 1 else [values]
        for name, part in zip(array.fields, parts, strict=True):
            part = np.ascontiguousarray(part)
            _check_finite(source, name, part, n, t)
            fields[name] = np.broadcast_to(part, (len(part), t.stop - t.start, *part.shape[2:]))
    return fields


def _read_array(array: Array, nodes: Sequence[h5py.Group], n: slice, t: slice) -> np.ndarray:
    """One dataset as (n, t, x, y[, c]) float32; t is 1 where it is constant in time."""
    selection = tuple({"n": n, "t": t}.get(letter, slice(None)) for letter in array.axes)
    parts = []
    for node in nodes if "n" in array.axes else nodes[n]:
        with reading(place(node, array.key)):
            part = np.asarray(node[array.key][selection])
            for fill in fill_values(node[array.key]):
                part[part == part.dtype.type(fill)] = np.nan
        parts.append(part)
    axes, raw = (array.axes, parts[0]) if "n" in array.axes else (f"n{array.axes}", np.stack(parts))
    sizes = dict(zip(axes, raw.shape, strict=True))
    shape = [sizes.get(letter, 1) for letter in "ntxyc" if letter in axes or letter != "c"]
    with np.errstate(over="ignore"):  # beyond float32 is found, with its position, by the finite check
        raw = raw.transpose([axes.index(letter) for letter in "ntxyc1" if letter in axes])
        return raw.reshape(shape).astype(np.float32, copy=False)


def _check_finite(source: Source, name: str, values: np.ndarray, n: slice, t: slice) -> None:
    """Refuse the first value of (n, t, x, y[, c]) that is not finite."""
    # The sum of squares runs at the speed of memory and is finite only if every value is. Finite values
    # above 1e19 overflow it in float32, hence the second look.
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.dot(flat, flat)) or not (bad := ~np.isfinite(values)).any():
            return
    sample, time, *point = np.argwhere(bad)[0].tolist()
    raise ValueError(
        f"{source.path}: field {name!r} is {values[(sample, time, *point)]} (missing, or beyond float32) in "
        f"sample {source.samples[n.start + sample]}, time {t.start + time}, grid point {tuple(point)} "
        f"({bad.sum()} such values in this block); {AGAIN} or leave it out"
    )
