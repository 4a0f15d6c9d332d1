"""What a PDEBench file holds, checked against its family before anything is written.

`describe_source` reads headers, coordinates, times and parameters; frames are read by `reader.SourceReader`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gust_torch.convert.families import Family, refuse_3d
from gust_torch.convert.grids import Grid, read_grid
from gust_torch.convert.nodes import common_sizes, get_dataset, get_datasets, open_source, place, sample_nodes
from gust_torch.convert.parameters import find_parameters, parse_config

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
    with open_source(path) as file:
        nodes = sample_nodes(file, family, max_samples)
        sizes = common_sizes(nodes, family)
        _warn_of_extras(nodes[0][1], family, path)
        samples = tuple(key for key, _ in nodes) if family.groups else _indices(sizes["n"], max_samples)
        num_frames = _used_frames(file, sizes.get("t", 1), path)
        configs = [_config(node, _where(path, key)) for key, node in nodes]
        return Source(
            path=path,
            name=name or path.name,
            family=family,
            samples=samples,
            num_frames=num_frames,
            shapes=_shapes(family, sizes),
            grid=read_grid(nodes, family, sizes, configs[0][1], path),
            time_rows=_time_rows(nodes, family, len(samples), sizes.get("t", 1), num_frames),
            parameters=_parameters(nodes, family, configs, path, len(samples)),
            dtype=max(str(dataset.dtype.name) for dataset in get_datasets(nodes[0][1], family)),
            config=configs[0][0],
            frame_bytes=_frame_bytes(nodes[0][1], family, sizes),
            chunk=_chunk(nodes[0][1], family),
        )


def _shapes(family: Family, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Field -> shape of one frame; 1-D grids have one point along y."""
    frame = (sizes["x"], sizes.get("y", 1))
    shapes: dict[str, tuple[int, ...]] = {}
    for array in family.arrays:
        vector = (sizes[f"c:{array.key}"],) if "c" in array.axes and len(array.fields) == 1 else ()
        shapes.update(dict.fromkeys(array.fields, frame + vector))
    return shapes


def _indices(num_samples: int, max_samples: int | None) -> tuple[str, ...]:
    """Keys of the samples of a file without groups: their indices."""
    used = num_samples if max_samples is None else min(num_samples, max_samples)
    return tuple(str(index) for index in range(used))


def _used_frames(file: h5py.File, num_frames: int, path: Path) -> int:
    """Frames up to `latestIndex`, after which a killed run leaves zeros; all where there is no such mark."""
    if "latestIndex" not in file.attrs:
        return num_frames
    latest = int(file.attrs["latestIndex"])
    if not 0 <= latest < num_frames:
        raise ValueError(
            f"{path}: attribute 'latestIndex' is {latest}, expected 0 to {num_frames - 1}; "
            "the run wrote no usable frames: leave the file out"
        )
    if latest + 1 < num_frames:
        logger.warning(
            "%s: the run stopped early (latestIndex); used frames 0 to %d, the other %d are zeros",
            path,
            latest,
            num_frames - latest - 1,
        )
    return latest + 1


def _time_rows(
    nodes: list[tuple[str, h5py.Group]], family: Family, num: int, num_frames: int, used: int
) -> np.ndarray:
    """(n or 1, used) float64. Upstream often stores one time more than there are frames, which is dropped."""
    if not family.time_key:
        return np.zeros((1, used))
    rows = []
    for _, node in nodes:
        dataset = get_dataset(node, family.time_key)
        times = np.atleast_2d(np.asarray(dataset[...], dtype=np.float64))[:num]
        if (
            times.ndim != 2
            or times.shape[0] not in (1, num)
            or times.shape[1] not in (num_frames, num_frames + 1)
        ):
            raise ValueError(
                f"{place(node, family.time_key)} has shape {dataset.shape} for {num_frames} frames, expected "
                f"{num_frames} or {num_frames + 1} times; download the file again"
            )
        times = times[:, :used]
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError(
                f"{place(node, family.time_key)} is not finite and increasing; download it again"
            )
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
    text = text.decode() if isinstance(text, bytes) else str(text)
    return text, parse_config(text, where)


def _parameters(
    nodes: list[tuple[str, h5py.Group]],
    family: Family,
    configs: list[tuple[str, dict[str, Any]]],
    path: Path,
    num: int,
) -> dict[str, np.ndarray]:
    """name -> (n,) float64: one value a group, or the file's value for all its trajectories."""
    rows = [
        find_parameters(family.parameters, path, dict(node.attrs), config, _where(path, key))
        for (key, node), (_, config) in zip(nodes, configs, strict=True)
    ]
    return {
        parameter.name: np.broadcast_to(np.array([row[parameter.name] for row in rows]), (num,))
        for parameter in family.parameters
    }


def _frame_bytes(node: h5py.Group, family: Family, sizes: Mapping[str, int]) -> int:
    """Bytes of one frame of all fields, as stored or as float32, whichever is more."""
    total = 0
    for array, dataset in zip(family.arrays, get_datasets(node, family), strict=True):
        elements = sizes["x"] * sizes.get("y", 1) * sizes.get(f"c:{array.key}", 1)
        total += elements * max(4, dataset.dtype.itemsize)
    return total


def _chunk(node: h5py.Group, family: Family) -> tuple[int, int]:
    """Largest chunk over the arrays along the sample and the time axis."""
    chunks = {"n": 1, "t": 1}
    for array, dataset in zip(family.arrays, get_datasets(node, family), strict=True):
        for letter, size in zip(array.axes, dataset.chunks or (), strict=False):
            if letter in chunks:
                chunks[letter] = max(chunks[letter], size)
    return chunks["n"], chunks["t"]


def _warn_of_extras(node: h5py.Group, family: Family, path: Path) -> None:
    """Says which arrays of the file are not converted; nothing is left out silently."""
    known = {array.key for array in family.arrays} | set(family.coordinates) | {family.time_key}
    extras = [
        key
        for key, item in node.items()
        if isinstance(item, h5py.Dataset) and item.ndim > 1 and key not in known
    ]
    if extras:
        logger.warning("%s: not part of %s, left out: %s", path, family.name, ", ".join(extras))
