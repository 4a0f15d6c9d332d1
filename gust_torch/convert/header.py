"""Grid, boundaries and physical parameters of a source."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gust_torch.convert.families import Family, Parameter
from gust_torch.convert.nodes import AGAIN, Nodes, place, read_numbers

logger = logging.getLogger(__name__)

# "Nu0.01", "Eta1.e-8", "M0.1": a key directly followed by a number, one of the name's "_" separated tokens.
_TOKEN = re.compile(r"([A-Za-z]+)([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")

# The C loader reads a config ten times faster, which tells with thousands of groups.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Points of a uniform axis lie within this share of a cell of where they should, beside float32 rounding.
_UNIFORM = 1e-3


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
    nodes: Nodes, family: Family, sizes: Mapping[str, int], config: Mapping[str, Any], path: Path
) -> Grid:
    """Return the grid of a file, equal in all of its groups.

    Args:
        nodes: (key, group) of each sample, or ("", file).
        family: The file's family.
        sizes: Axis letter -> length.
        config: Parsed config of the first sample.
        path: The file.

    Raises:
        ValueError: A coordinate is missing, does not fit the fields, is not uniform, or differs by group.
    """
    boundary = _boundary(family, config, path)
    num = (sizes["x"], sizes.get("y", 1))
    if family.coordinates:
        keys = zip(family.coordinates, num, strict=False)
        axes = [_coordinate(nodes, key, size, boundary) for key, size in keys]
    else:
        axes = _config_axes(num, family.domain or num, config, path)[: 2 if "y" in sizes else 1]
    is_flat = len(axes) == 1
    x, y = axes[0], (np.zeros(1, np.float32) if is_flat else axes[1])
    return Grid(
        x=x,
        y=y,
        boundary=(boundary, "periodic" if is_flat else boundary),
        lengths=(_length(x), 1.0 if is_flat else _length(y)),
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
                f"PERIODIC; without it the boundary is unknown: {AGAIN}"
            )
        return "periodic" if kind == "PERIODIC" else "wall"
    return family.boundary


def _coordinate(nodes: Nodes, key: str, size: int, boundary: str) -> np.ndarray:
    """One coordinate as (size,) float32, after checking that all groups have the same."""
    first: np.ndarray | None = None
    for _, node in nodes:
        values = read_numbers(node, key)
        where = place(node, key)
        if values.shape != (size,):
            raise ValueError(
                f"{where} has shape {values.shape}, the fields have {size} points along that axis; {AGAIN}"
            )
        if first is None:
            _check_axis(values, where, periodic=boundary == "periodic")
            first = values
        elif not np.array_equal(values, first):
            raise ValueError(f"{where} differs from that of the first group; convert such groups separately")
    assert first is not None  # a file without groups was refused before
    return first.astype(np.float32)


def _check_axis(values: np.ndarray, where: str, *, periodic: bool) -> None:
    """Refuse coordinates that are not uniform, or that hold both ends of a period."""
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise ValueError(f"{where} is not finite and increasing; {AGAIN}")
    uniform = np.linspace(values[0], values[-1], len(values))
    width = (values[-1] - values[0]) / max(len(values) - 1, 1)
    off = np.abs(values - uniform).max()
    if off > _UNIFORM * width + 4 * np.finfo(np.float32).eps * np.abs(values).max():
        raise ValueError(
            f"{where} is not uniform: a point lies {off / width:.3g} cells off, expected equal "
            "distances; interpolate the fields to a uniform grid"
        )
    if periodic and _holds_both_ends(values):
        raise ValueError(
            f"{where} runs from {values[0]:.6g} to {values[-1]:.6g}, as if both ends of the domain were "
            f"points: {len(values)} cells would have the length {width * len(values):.6g}; expected cell "
            "centers: leave the repeated last point out of fields and coordinates, or correct the coordinates"
        )


def _holds_both_ends(values: np.ndarray) -> bool:
    """Whether the distance of the outer points is the length of the domain, and not one cell more."""
    span = float(values[-1] - values[0])
    return len(values) > 1 and _is_round(span) and not _is_round(span * len(values) / (len(values) - 1))


def _is_round(length: float) -> bool:
    """Whether a domain may have this length: a multiple of 1/8 or of pi/8."""
    parts = np.array([length, length / math.pi]) * 8
    return length > 1e-3 and bool((np.abs(parts - np.round(parts)) < 1e-4 + 1e-6 * parts).any())


def _config_axes(
    num: tuple[int, int], domain: tuple[float, float], config: Mapping[str, Any], path: Path
) -> list[np.ndarray]:
    """Cell centers from the config: of its `domain_size`, else of `domain`."""
    sizes = _pair(config.get("grid_size", num), f"{path}: grid_size in attribute 'config'")
    if sizes != list(num):
        raise ValueError(
            f"{path}: grid_size in attribute 'config' is {sizes}, the fields have {list(num)}; {AGAIN}"
        )
    lengths = _pair(config.get("domain_size", domain), f"{path}: domain_size in attribute 'config'")
    return [
        ((np.arange(size) + 0.5) * (length / size)).astype(np.float32)
        for size, length in zip(num, lengths, strict=True)
    ]


def _pair(value: Any, where: str) -> list[float]:
    """Two positive numbers of a config."""
    numbers = [_number(each, where) for each in value] if isinstance(value, (list, tuple)) else []
    if len(numbers) != 2 or min(numbers) <= 0:
        raise ValueError(f"{where} is {value!r}, expected two positive numbers")
    return numbers


def _length(centers: np.ndarray) -> float:
    """Domain length of a uniform axis: of cells around its points, or between its outer points, on walls.

    Rounded to the six digits that float32 coordinates are good for, so that 0.99999994 is 1.
    """
    num = len(centers)
    length = float(centers[-1]) - float(centers[0]) if num > 1 else 1.0
    if num > 1 and not _holds_both_ends(centers):
        length *= num / (num - 1)
    return float(f"{length:.6g}")


def parse_config(text: str, where: str) -> dict[str, Any]:
    """YAML text of a `config` attribute as one flat mapping; entries of its `sim` section come to the top.

    Args:
        text: The attribute.
        where: File and group, for messages.

    Raises:
        ValueError: The text is not a YAML mapping.
    """
    try:
        loaded = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: attribute 'config' is not YAML ({reason})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{where}: attribute 'config' is {type(loaded).__name__}, expected a YAML mapping")
    simulation = loaded.get("sim")
    return {**loaded, **simulation} if isinstance(simulation, dict) else loaded


def name_parameters(path: Path) -> dict[str, float]:
    """Numbers in a file's name by the key in front of them, in any order: `..._M0.1_Eta1.e-8_...`."""
    stem = re.sub(r"\.(hdf5|h5)$", "", path.name, flags=re.IGNORECASE)
    matches = (_TOKEN.fullmatch(token) for token in stem.split("_"))
    return {match.group(1): float(match.group(2)) for match in matches if match}


def find_parameters(
    wanted: Sequence[Parameter],
    path: Path,
    attributes: Mapping[str, Any],
    config: Mapping[str, Any],
    where: str,
    *,
    required: bool = True,
) -> dict[str, float]:
    """Values of `wanted` from the first of attributes, config and file name that has the key.

    Args:
        wanted: The family's parameters.
        path: The source, for its name.
        attributes: HDF5 attributes of the file or group.
        config: Its parsed config; empty where there is none.
        where: File and group, for messages.
        required: Whether a parameter that is nowhere is refused, or left out with a warning.

    Returns:
        name -> value, in the order of `wanted`.

    Raises:
        ValueError: A parameter is nowhere, or is not one finite number.
    """
    places = {"attribute": attributes, "config": config, "file name": name_parameters(path)}
    found = {}
    for parameter in wanted:
        values = {
            place: _number(value, f"{where}: {parameter.keys[0]} ({place})")
            for place, mapping in places.items()
            if (value := _by_key(mapping, parameter.keys)) is not None
        }
        if not values and not required:
            logger.warning("%s: parameter %r is not stored, left out", where, parameter.name)
            continue
        if not values:
            raise ValueError(
                f"{where}: parameter {parameter.keys[0]!r} is neither an attribute, nor in a config, nor in "
                f"the file's name; set the attribute or name the file as released ({parameter.keys[0]}0.01)"
            )
        place, value = next(iter(values.items()))
        if any(not math.isclose(value, other, rel_tol=1e-6) for other in values.values()):
            logger.warning("%s: %s differs between %s; used the %s", where, parameter.name, values, place)
        found[parameter.name] = value
    return found


def _by_key(mapping: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Value of the first of `keys` in `mapping`: exact spelling first, then any case."""
    for key in keys:
        if key in mapping:
            return mapping[key]
    folded = {key.casefold() for key in keys}
    return next((mapping[key] for key in mapping if str(key).casefold() in folded), None)


def _number(value: Any, where: str) -> float:
    """`value` as a finite float; YAML leaves 1e-8 a string, attributes may be arrays of one."""
    try:
        number = float(np.asarray(value).reshape(()).item() if np.size(value) == 1 else "no number")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is {value!r}, expected one number") from error
    if not math.isfinite(number):
        raise ValueError(f"{where} is {value!r}, expected a finite number")
    return number
