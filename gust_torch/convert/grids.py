"""Coordinates, boundaries and domain lengths of a source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gust_torch.convert.families import Family


@dataclass(frozen=True)
class Grid:
    """The grid of one source; all PDEBench grids are uniform and cell-centered.

    Attributes:
        x: (h,) float32 cell centers.
        y: (w,) float32 cell centers; [0] for 1-D data.
        boundary: "periodic" or "wall" along x and y.
        lengths: Domain lengths: number of cells times cell width; 1 along the missing axis of 1-D data.
    """

    x: np.ndarray
    y: np.ndarray
    boundary: tuple[str, str]
    lengths: tuple[float, float]

    def difference(self, other: "Grid") -> str:
        """Return what differs from `other`, in words; "" where they agree to float32 rounding."""
        for name, mine, theirs in (("x", self.x, other.x), ("y", self.y, other.y)):
            if mine.shape != theirs.shape:
                return f"{len(mine)} points along {name} instead of {len(theirs)}"
            if not np.allclose(mine, theirs, rtol=0.0, atol=1e-5 * np.ptp(theirs)):
                return f"{name} from {mine[0]} to {mine[-1]} instead of {theirs[0]} to {theirs[-1]}"
        if self.boundary != other.boundary:
            return f"boundary {self.boundary[0]} instead of {other.boundary[0]}"
        return ""


def read_grid(
    nodes: Sequence[tuple[str, h5py.Group]],
    family: Family,
    sizes: Mapping[str, int],
    config: Mapping[str, Any],
    path: Path,
) -> Grid:
    """Return the grid of a file, equal in all of its groups.

    Args:
        nodes: (key, group) of each sample, or ("", file).
        family: The file's family.
        sizes: Axis letter -> length.
        config: Parsed config of the first sample.
        path: The file.

    Raises:
        ValueError: A coordinate is missing, does not fit the fields, does not increase, or differs by group.
    """
    boundary = _boundary(family, config, path)
    num = (sizes["x"], sizes.get("y", 1))
    if family.coordinates:
        axes = [_coordinate(nodes, key, size) for key, size in zip(family.coordinates, num, strict=False)]
    else:
        axes = _config_axes(num, config, path)
    one_dimensional = len(axes) == 1
    x, y = axes[0], (np.zeros(1, np.float32) if one_dimensional else axes[1])
    return Grid(
        x=x,
        y=y,
        boundary=(boundary, "periodic" if one_dimensional else boundary),
        lengths=(_length(x), 1.0 if one_dimensional else _length(y)),
    )


def _boundary(family: Family, config: Mapping[str, Any], path: Path) -> str:
    """ "periodic" or "wall" of this file."""
    if family.boundary == "name":
        tokens = path.stem.casefold().split("_")
        kinds = {"periodic": "periodic", "trans": "wall"}
        found = [kinds[token] for token in tokens if token in kinds]
        if len(found) != 1:
            raise ValueError(
                f"{path}: the file name says neither 'periodic' nor 'trans', so the boundary is unknown; "
                "name the file (or a link to it) as released: ..._periodic_... or ..._trans_..."
            )
        return found[0]
    if family.boundary == "config":
        kind = str(config.get("velocity_extrapolation")).upper()
        if kind not in ("ZERO", "BOUNDARY", "PERIODIC"):
            raise ValueError(
                f"{path}: velocity_extrapolation in attribute 'config' is {kind}, expected ZERO, BOUNDARY or "
                "PERIODIC; without it the boundary is unknown: download the file again"
            )
        return "periodic" if kind == "PERIODIC" else "wall"
    return family.boundary


def _coordinate(nodes: Sequence[tuple[str, h5py.Group]], key: str, size: int) -> np.ndarray:
    """One coordinate as (size,) float32, after checking that all groups have the same."""
    first: np.ndarray | None = None
    for _, node in nodes:
        dataset = node.get(key)
        where = f"{node.file.filename}: dataset {(node.name + '/' + key).strip('/')!r}"
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
            raise ValueError(f"{where} is missing or not numeric; download the file again")
        if dataset.shape != (size,):
            raise ValueError(
                f"{where} has shape {dataset.shape}, the fields have {size} points along that axis; "
                "download the file again"
            )
        values = np.asarray(dataset[...], dtype=np.float32)
        if first is None:
            first = values
            if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
                raise ValueError(f"{where} is not finite and increasing; download the file again")
        elif not np.array_equal(values, first):
            raise ValueError(f"{where} differs from that of the first group; convert such groups separately")
    assert first is not None  # a file without groups was refused before
    return first


def _config_axes(num: tuple[int, int], config: Mapping[str, Any], path: Path) -> list[np.ndarray]:
    """Cell centers from the config: its `domain_size`, else upstream's box of one unit a cell."""
    if list(config.get("grid_size", num)) != list(num):
        raise ValueError(
            f"{path}: grid_size in attribute 'config' is {config['grid_size']}, the fields have {list(num)}; "
            "download the file again"
        )
    lengths = [float(length) for length in config.get("domain_size", num)]
    return [
        ((np.arange(size) + 0.5) * (length / size)).astype(np.float32)
        for size, length in zip(num, lengths, strict=True)
    ]


def _length(centers: np.ndarray) -> float:
    """Domain length of a uniform cell-centered axis, from the distance of its outer centers.

    Rounded to the six digits that float32 coordinates are good for, so that 0.99999994 is 1.
    """
    num = len(centers)
    length = (float(centers[-1]) - float(centers[0])) * num / (num - 1) if num > 1 else 1.0
    return float(f"{length:.6g}")
