"""What a source file holds, checked against its family before anything is written.

`describe_source` reads headers, coordinates, times and parameters; frames are read by `reader.SourceReader`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gust_torch.convert.families import Array, Family, refuse_3d
from gust_torch.convert.header import Grid, find_parameters, parse_config, read_grid
from gust_torch.convert.nodes import (
    AGAIN,
    AXES,
    Nodes,
    check_stored,
    field_dataset,
    place,
    read_numbers,
    reading,
    sample_nodes,
)
from gust_torch.convert.ups import in_ups_form, ups_parameters
from solvers.common.hdf5.reader import open_hdf5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One file of a family, checked.

    Attributes:
        path: The file.
        name: The path as it is recorded in outputs: relative to the raw root, with forward slashes.
        family: Its family.
        samples: Key of each trajectory in the file: its index along the sample axis, or its group's name.
        num_frames: Frames of each trajectory (t).
        shapes: field -> shape of one frame, (x, y) or (x, y, c).
        grid: Coordinates, boundaries and lengths.
        time_rows: (n, t) float64, times of the frames; (1, t) where all trajectories have the same.
        parameters: name -> (n,) float64.
        dtype: Type of the fields upstream ("float32", or "float64" which is rounded to float32).
        config: YAML text of the first trajectory's config, "" where upstream stores none.
        frame_bytes: Bytes of one frame of all fields, upstream or as float32, whichever is more.
        chunk: (trajectories, times) that one chunk of the file covers; (1, 1) where it is not chunked.
    """

    path: Path
    name: str
    family: Family
    samples: tuple[str, ...]
    num_frames: int
    shapes: Mapping[str, tuple[int, ...]]
    grid: Grid
    time_rows: np.ndarray
    parameters: Mapping[str, np.ndarray]
    dtype: str
    config: str
    frame_bytes: int
    chunk: tuple[int, int]

    @property
    def num_trajectories(self) -> int:
        """Trajectories that are converted."""
        return len(self.samples)

    @property
    def times(self) -> np.ndarray:
        """(n, t) float64, times of the frames."""
        return np.broadcast_to(self.time_rows, (self.num_trajectories, self.num_frames))


def describe_source(path: Path, family: Family, *, max_samples: int | None = None, name: str = "") -> Source:
    """Headers, coordinates, times and parameters of one file.

    Args:
        path: The file.
        family: The family it belongs to.
        max_samples: Only the first so many trajectories; None for all.
        name: How outputs record the file; its file name where empty.

    Raises:
        ValueError: Anything that is not as the family has it, with file, key and remedy.
    """
    refuse_3d(path.name)
    with reading(path), open_hdf5(path) as file:
        if "fields" in file:
            raise ValueError(f"{path} is in the common format (/fields), nothing to convert; leave it out")
        family = in_ups_form(family, file)
        nodes = sample_nodes(file, family, max_samples)
        sizes = _common_sizes(nodes, family)
        _warn_of_extras(nodes[0][1], family, path)
        samples = tuple(key for key, _ in nodes)
        if not family.groups:
            samples = tuple(map(str, range(min(sizes["n"], max_samples or sizes["n"]))))
        num_frames = _used_frames(file, sizes.get("t", 1), path)
        configs = [_config(node, _where(path, key)) for key, node in nodes]
        datasets = [field_dataset(nodes[0][1], array) for array in family.arrays]
        _check_stored(nodes, family, len(samples), num_frames)
        return Source(
            path=path,
            name=name or path.name,
            family=family,
            samples=samples,
            num_frames=num_frames,
            shapes=_shapes(family, sizes),
            grid=read_grid(nodes, family, sizes, configs[0][1], path),
            time_rows=_time_rows(nodes, family, len(samples), sizes.get("t", 1), num_frames),
            parameters=ups_parameters(file, family, sizes["n"], len(samples))
            if family.ups
            else _parameters(nodes, family, [config for _, config in configs], path, len(samples)),
            dtype=max(str(dataset.dtype.name) for dataset in datasets),
            config=configs[0][0],
            frame_bytes=_frame_bytes(family, datasets, sizes),
            chunk=_chunk(family, datasets),
        )


def _array_sizes(node: h5py.Group, array: Array) -> dict[str, int]:
    """Axis letter -> length of one dataset, after checking type and rank."""
    dataset = field_dataset(node, array)
    where = place(node, array.key)
    sizes = dict(zip(array.axes, dataset.shape, strict=True))
    if sizes.pop("1", 1) != 1 or (len(array.fields) > 1 and sizes["c"] != len(array.fields)):
        raise ValueError(
            f"{where} has shape {dataset.shape}, expected length "
            f"{len(array.fields)} on the component axis ({', '.join(array.axes)}); {AGAIN}"
        )
    if empty := [AXES[letter] for letter, size in sizes.items() if size == 0]:
        raise ValueError(
            f"{where} has shape {dataset.shape}: no {empty[0]}, nothing to convert; leave it out"
        )
    return sizes


def _common_sizes(nodes: Nodes, family: Family) -> dict[str, int]:
    """Axis letter -> length, equal over all arrays of all groups; "c:KEY" -> components of array KEY.

    Raises:
        ValueError: A wrong type, rank or length, with file, group and key.
    """
    common: dict[str, int] = {}
    origins: dict[str, str] = {}
    for key, node in nodes:
        for array in family.arrays:
            for letter, size in _array_sizes(node, array).items():
                name = f"c:{array.key}" if letter == "c" else letter
                if common.setdefault(name, size) != size:
                    raise ValueError(
                        f"{place(node, array.key)} has {size} {AXES[letter]}, {origins[name]} has "
                        f"{common[name]}; the file is damaged: download it again"
                    )
                origins.setdefault(name, f"{key}/{array.key}".strip("/"))
    return common


def _check_stored(nodes: Nodes, family: Family, num: int, num_frames: int) -> None:
    """Refuse frames that were never written."""
    for _, node in nodes:
        for array in family.arrays:
            dataset = field_dataset(node, array)
            counts = {"n": num, "t": num_frames}
            used = [counts.get(letter, size) for letter, size in zip(array.axes, dataset.shape, strict=True)]
            check_stored(node, array.key, dataset, used)


def _shapes(family: Family, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Field -> shape of one frame; 1-D grids have one point along y."""
    frame = (sizes["x"], sizes.get("y", 1))
    shapes: dict[str, tuple[int, ...]] = {}
    for array in family.arrays:
        vector = (sizes[f"c:{array.key}"],) if "c" in array.axes and len(array.fields) == 1 else ()
        shapes.update(dict.fromkeys(array.fields, frame + vector))
    return shapes


def _used_frames(file: h5py.File, num_frames: int, path: Path) -> int:
    """Frames up to `latestIndex`, after which a killed run leaves zeros; all where there is no such mark."""
    if "latestIndex" not in file.attrs:
        return num_frames
    mark = np.asarray(file.attrs["latestIndex"])
    if mark.size != 1 or mark.dtype.kind not in "iu" or not 0 <= mark.item() < num_frames:
        raise ValueError(
            f"{path}: attribute 'latestIndex' is {mark.tolist()}, expected 0 to {num_frames - 1}; "
            "the run wrote no usable frames: leave the file out"
        )
    used = int(mark.item()) + 1
    if used < num_frames:
        logger.warning(
            "%s: the run stopped early (latestIndex); used frames 0 to %d, the other %d are zeros",
            path,
            used - 1,
            num_frames - used,
        )
    return used


def _time_rows(nodes: Nodes, family: Family, num: int, num_frames: int, used: int) -> np.ndarray:
    """(n or 1, used) float64. Upstream often stores one time more than there are frames, which is dropped."""
    if not family.time_key:
        return np.arange(used, dtype=np.float64)[None]
    rows = []
    for _, node in nodes:
        stored = read_numbers(node, family.time_key)
        where = place(node, family.time_key)
        times = np.atleast_2d(stored)[:num]
        if (
            times.ndim != 2
            or times.shape[0] not in (1, num)
            or times.shape[1] not in (num_frames, num_frames + 1)
        ):
            raise ValueError(
                f"{where} has shape {stored.shape} for {num_frames} frames, expected "
                f"{num_frames} or {num_frames + 1} times; {AGAIN}"
            )
        times = times[:, :used]
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError(f"{where} is not finite and increasing; {AGAIN}")
        rows.append(times)
    return np.concatenate(rows)


def _where(path: Path, key: str) -> str:
    """File and group, for messages."""
    return f"{path}: group {key!r}" if key else str(path)


def _config(node: h5py.Group, where: str) -> tuple[str, dict[str, Any]]:
    """Text of attribute `config` and its parsed content; ("", {}) where there is none."""
    if "config" not in node.attrs:
        return "", {}
    text = node.attrs["config"]
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return text, parse_config(text, where)


def _parameters(
    nodes: Nodes, family: Family, configs: Sequence[Mapping[str, Any]], path: Path, num: int
) -> dict[str, np.ndarray]:
    """name -> (n,) float64: one value a group, or the file's value for all its trajectories."""
    rows = [
        find_parameters(family.parameters, path, node.attrs, config, _where(path, key))
        for (key, node), config in zip(nodes, configs, strict=True)
    ]
    return {name: np.broadcast_to([row[name] for row in rows], (num,)) for name in rows[0]}


def _frame_bytes(family: Family, datasets: Sequence[h5py.Dataset], sizes: Mapping[str, int]) -> int:
    """Bytes of one frame of all fields, as stored or as float32, whichever is more."""
    points = sizes["x"] * sizes.get("y", 1)
    return sum(
        points * sizes.get(f"c:{array.key}", 1) * max(4, dataset.dtype.itemsize)
        for array, dataset in zip(family.arrays, datasets, strict=True)
    )


def _chunk(family: Family, datasets: Sequence[h5py.Dataset]) -> tuple[int, int]:
    """Largest chunk over the arrays along the sample and the time axis."""
    chunks = {"n": 1, "t": 1}
    for array, dataset in zip(family.arrays, datasets, strict=True):
        for letter, size in zip(array.axes, dataset.chunks or (), strict=False):
            if letter in chunks:
                chunks[letter] = max(chunks[letter], size)
    return chunks["n"], chunks["t"]


def _warn_of_extras(node: h5py.Group, family: Family, path: Path) -> None:
    """Say which arrays of the file are not converted; nothing is left out silently."""
    known = {array.key for array in family.arrays} | set(family.coordinates) | {family.time_key}
    extras = [
        key
        for key, item in node.items()
        if isinstance(item, h5py.Dataset) and item.ndim > 1 and key not in known
    ]
    if extras:
        logger.warning("%s: not part of %s, left out: %s", path, family.name, ", ".join(extras))
