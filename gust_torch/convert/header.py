"""What a foreign HDF5 file holds around its frames: sample groups, coordinates, boundaries, parameters."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from gust_torch.convert.families import Array, Family
from solvers.common.hdf5.reader import open_error
from solvers.common.hdf5.storage import storage_problem
from solvers.common.hdf5.structure import NUMBERS, Contents, Rule

logger = logging.getLogger(__name__)

AGAIN = "download the file again"
AXES = {"n": "samples", "t": "times", "x": "points along x", "y": "points along y", "c": "components"}

# "Nu0.01", "Eta1.e-8", "M0.1": a key directly followed by a number, one of the name's "_" separated tokens.
_TOKEN = re.compile(r"([A-Za-z]+)([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
# The C loader reads a config ten times faster, which tells with thousands of groups.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Points of a uniform axis lie within this share of a cell of where they should, beside float32 rounding.
_UNIFORM = 1e-3
_BOUNDARIES = {"periodic": "periodic", "trans": "wall", "zero": "wall", "boundary": "wall"}


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Turn what HDF5 says of damage that only shows while it reads into a ValueError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # the last two of types
        if isinstance(error, ValueError) and str(where) in str(error):
            raise
        raise open_error(where, error) from error


def place(node: h5py.Group | h5py.Dataset, key: str = "") -> str:
    """File and path of a group or dataset, for messages."""
    path = node.name.rstrip("/") + (key and f"/{key}")
    return f"{node.file.filename}: {path}" if path else str(node.file.filename)


def sample_nodes(file: h5py.File, family: Family, max_samples: int | None) -> list[h5py.Group]:
    """Return the file itself, or the first `max_samples` groups by name, which need not be contiguous."""
    if not family.groups:
        return [file]
    names = [name for name in sorted(file, key=str) if not isinstance(file.get(name), h5py.Dataset)]
    if not names:
        raise ValueError(f"{file.filename}: no sample groups (0000, 0001, ...) to convert; {AGAIN}")
    return [_look(file, name, Rule(group=True)) for name in names[:max_samples]]


def field_dataset(node: h5py.Group, array: Array) -> h5py.Dataset:
    """Return the dataset of an array of a family, of the right type and rank."""
    shape = ", ".join(AXES.get(letter, "1") for letter in array.axes)
    return _look(node, array.key, Rule(shape=f"({shape})", ranks=(len(array.axes),), kinds="f", remedy=AGAIN))


def read_numbers(node: h5py.Group, key: str) -> np.ndarray:
    """Read a small numeric dataset as float64."""
    dataset = _look(node, key, Rule(ranks=(0, 1, 2), kinds=NUMBERS, remedy=AGAIN))
    check_stored(dataset, dataset.shape)
    return np.asarray(dataset[()], dtype=np.float64)


def check_stored(dataset: h5py.Dataset, used: Sequence[int]) -> None:
    """Refuse unwritten values, read as zeros, among the first `used` entries along each axis."""
    problem = storage_problem(dataset, used[0] if used else None)
    if problem and dataset.chunks:  # later times may be missing
        stored: list[tuple[int, ...]] = []
        dataset.id.chunk_iter(lambda chunk: stored.append(chunk.chunk_offset))
        needed = math.prod(-(-n // c) for n, c in zip(used, dataset.chunks, strict=True))
        if sum(all(a < b for a, b in zip(offset, used, strict=True)) for offset in stored) == needed:
            return
    if problem:
        raise ValueError(f"{place(dataset)}: {problem}; {AGAIN}, or take fewer with --samples")


def _look(node: h5py.Group, key: str, rule: Rule) -> Any:
    """Return what a key names; it lies in this file, and is what the rule says."""
    found = Contents(node.file, node.file.filename).look(f"{node.name}/{key}".strip("/"), rule)
    if found is None:
        raise ValueError(f"{place(node, key)} is missing; the file is damaged or of another family: {AGAIN}")
    return found


@dataclass(frozen=True)
class Grid:
    """A uniform grid: cell centers x (h,), y (w,) in float32, "periodic" or "wall" and length along each.

    1-D data have y = [0] and the length 1 along it.
    """

    x: np.ndarray
    y: np.ndarray
    boundary: tuple[str, str]
    lengths: tuple[float, float]


def read_grid(
    nodes: Sequence[h5py.Group], family: Family, num: Sequence[int], config: Mapping[str, Any], path: Path
) -> Grid:
    """Return the grid of a file with `num` points along x, or x and y; equal in all of its groups."""
    boundary = _boundary(family, config, path)
    if family.coordinates:
        keys = zip(family.coordinates, num, strict=True)
        axes = [_coordinate(nodes, key, size, boundary == "periodic") for key, size in keys]
    else:
        axes = _config_axes(num, (family.domain or num)[: len(num)], config, path)
    boundaries = (boundary, boundary if len(num) == 2 else "periodic")
    x, y = [*axes, np.zeros(1, np.float32)][:2]
    return Grid(x, y, boundaries, (_length(x), _length(y)))


def _boundary(family: Family, config: Mapping[str, Any], path: Path) -> str:
    """Find whether this file is "periodic" or "wall"."""
    kind = family.boundary[0]
    if kind in ("periodic", "wall"):
        return kind
    words = path.stem.split("_") if kind == "name" else [config.get("velocity_extrapolation")]
    found = [_BOUNDARIES[word] for word in (str(word).casefold() for word in words) if word in _BOUNDARIES]
    if len(found) != 1:
        raise ValueError(
            f"{path}: the boundary is unknown; name the file as released (_periodic_, _trans_), or set "
            "velocity_extrapolation in attribute 'config' to ZERO, BOUNDARY or PERIODIC"
        )
    return found[0]


def _coordinate(nodes: Sequence[h5py.Group], key: str, size: int, periodic: bool) -> np.ndarray:
    """One coordinate as (size,) float32, uniform and the same in all groups."""
    values, where = read_numbers(nodes[0], key), place(nodes[0], key)
    if values.shape != (size,):
        raise ValueError(f"{where} has shape {values.shape}, expected {size} points; {AGAIN}")
    with np.errstate(invalid="ignore"):  # of NaN and Inf, for which nothing below is true
        off = np.abs(values - np.linspace(values[0], values[-1], size)).max()
        width = (values[-1] - values[0]) / max(size - 1, 1)
        allowed = _UNIFORM * width + 4 * np.finfo(np.float32).eps * np.abs(values).max()
        is_uniform = (np.diff(values) > 0).all() and off <= allowed
    if not is_uniform:
        raise ValueError(
            f"{where} is not uniform and increasing: a point of cells {width:.3g} wide is {off:.3g} off; "
            "interpolate the fields to a uniform grid"
        )
    if periodic and _holds_both_ends(values):
        raise ValueError(
            f"{where} runs from {values[0]:.6g} to {values[-1]:.6g}, both ends of a periodic domain; "
            "expected cell centers: leave the repeated last point out of fields and coordinates"
        )
    for node in nodes[1:]:
        if not np.array_equal(read_numbers(node, key), values):
            raise ValueError(
                f"{place(node, key)} differs from that of the first group; convert it separately"
            )
    return values.astype(np.float32)


def _config_axes(
    num: Sequence[int], domain: Sequence[float], config: Mapping[str, Any], path: Path
) -> list[np.ndarray]:
    """Cell centers from the config: of its `domain_size`, else of `domain`."""
    where = f"{path}: attribute 'config'"
    if (sizes := config.get("grid_size", list(num))) != list(num):
        raise ValueError(f"{where}: grid_size is {sizes}, the fields have {list(num)}; {AGAIN}")
    stated = config.get("domain_size", list(domain))
    lengths = [_number(each, f"{where}: domain_size") for each in stated] if isinstance(stated, list) else []
    if len(lengths) != len(num) or min(lengths) <= 0:
        raise ValueError(f"{where}: domain_size is {stated}, expected {len(num)} positive lengths; {AGAIN}")
    axes = zip(num, lengths, strict=True)
    return [((np.arange(size) + 0.5) * (length / size)).astype(np.float32) for size, length in axes]


def _length(centers: np.ndarray) -> float:
    """Domain length of a uniform axis: of cells around its points, or between its outer points, on walls.

    Rounded to the six digits that float32 coordinates are good for, so that 0.99999994 is 1.
    """
    num, span = len(centers), float(centers[-1]) - float(centers[0])
    length = span if _holds_both_ends(centers) else span * num / max(num - 1, 1)
    return float(f"{length:.6g}") if num > 1 else 1.0


def _holds_both_ends(values: np.ndarray) -> bool:
    """Whether the distance of the outer points is a round length (n/8, n pi/8), and not so one cell more."""
    span = float(values[-1]) - float(values[0])
    lengths = np.array([span, span * len(values) / max(len(values) - 1, 1)])
    parts = 8 * np.stack([lengths, lengths / math.pi])
    is_round = (np.abs(parts - np.round(parts)) < 1e-4 + 1e-6 * parts).any(axis=0) & (lengths > 1e-3)
    return is_round.tolist() == [True, False]


def read_config(node: h5py.Group) -> tuple[str, dict[str, Any]]:
    """YAML text of attribute `config` and its entries, also those of its section `sim`; "" and {} without."""
    text = node.attrs.get("config", "")
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    try:
        loaded = yaml.load(text or "{}", Loader=_LOADER)
        simulation = loaded.get("sim")
    except (yaml.YAMLError, RecursionError, ValueError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{place(node)}: attribute 'config' is no YAML mapping ({reason}); {AGAIN}"
        ) from error
    return text, {**loaded, **(simulation if isinstance(simulation, dict) else {})}


def name_parameters(path: Path) -> dict[str, float]:
    """Numbers in a file's name by the key in front of them, in any order: `..._M0.1_Eta1.e-8_...`."""
    stem = re.sub(r"\.(hdf5|h5)$", "", path.name, flags=re.IGNORECASE)
    return {match[1]: float(match[2]) for match in map(_TOKEN.fullmatch, stem.split("_")) if match}


def find_parameters(
    names: Sequence[str], places: Mapping[str, Mapping[str, Any]], where: str, *, required: bool
) -> dict[str, float]:
    """Find each parameter in the first of some places, by what messages call it, that has its name.

    One that is nowhere is refused, or left out with a warning.
    """
    found = {}
    for name in names:
        values = {
            kind: _number(value, f"{where}: {name} ({kind})")
            for kind, mapping in places.items()
            if (value := _by_name(mapping, name)) is not None
        }
        if values:
            first, found[name] = next(iter(values.items()))
            if not np.allclose(list(values.values()), found[name], rtol=1e-6, atol=0):
                logger.warning("%s: %s differs between %s; used the %s", where, name, values, first)
        elif required:
            raise ValueError(
                f"{where}: parameter {name!r} is neither {' nor '.join(places)}; set the attribute, or name "
                f"the file as released (..._{name}0.01_...)"
            )
        else:
            logger.warning("%s: parameter %r is not stored, left out", where, name)
    return found


def _by_name(mapping: Mapping[str, Any], name: str) -> Any:
    """Value under a name: in its exact spelling first, then in any case."""
    keys = [key for key in mapping if str(key).casefold() == name.casefold()]
    return mapping[name if name in keys else keys[0]] if keys else None


def _number(value: Any, where: str) -> float:
    """`value` as a finite float; YAML leaves 1e-8 a string, attributes may be arrays of one."""
    try:
        number = float(np.asarray(value).reshape(()).item())
        if math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{where} is {value!r}, expected one finite number; correct it, or {AGAIN}")
