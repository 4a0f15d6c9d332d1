"""Grids of the universal simulator: `data` with a component axis, `params/*`, `bc/*`, and maybe `targets`.

Its converter keeps one dataset of a PDEBench file, without coordinates and times. What is not stored is that
of the release: cells of the unit box, one unit a cell for Navier-Stokes; times are frame numbers.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from gust_torch.convert.families import Array, Family
from gust_torch.convert.header import find_parameters
from gust_torch.convert.nodes import place, read_numbers

logger = logging.getLogger(__name__)

_DATA, _TARGETS = "data", "targets"
_FIELDS = {
    # family: field of `data` by its components, axes without and with a component axis
    "advection1d": ({1: "u"}, "ntx"),
    "burgers1d": ({1: "u"}, "ntx"),
    "darcy2d": ({1: "nu"}, "nxy"),
    "navier_stokes2d": ({1: "u", 2: "velocity"}, "ntxy"),
}
_NOTE = "a file of the universal simulator"


def in_ups_form(family: Family, file: h5py.File) -> Family:
    """Return the family as the universal simulator stores it, where a file is one of its; else as it is."""
    data = file.get(_DATA)
    if family.name not in _FIELDS or not isinstance(data, h5py.Dataset):
        return family
    fields, axes = _FIELDS[family.name]
    components = data.shape[-1] if data.ndim == len(axes) + 1 else 1
    if components not in fields:
        raise ValueError(
            f"{place(file, _DATA)} has shape {data.shape}, expected {' or '.join(map(str, fields))} "
            f"components on its last axis for {family.name}; convert the released files instead"
        )
    last = "" if data.ndim == len(axes) else "1" if components == 1 else "c"
    arrays = [Array(_DATA, axes + last, (fields[components],))]
    if isinstance(file.get(_TARGETS), h5py.Dataset) and file[_TARGETS].shape == data.shape:
        arrays.append(Array(_TARGETS, axes + last, ("u" if family.name == "darcy2d" else _TARGETS,)))
    keys = ("x-coordinate", "y-coordinate")[: 2 if "y" in axes else 1]
    keys = keys if all(key in file for key in keys) else ()
    has_times = family.time_key in file and bool(family.time_key)
    missing = [] if keys else ["coordinates are those of the release"]
    missing += [] if has_times or not family.time_key else ["times are frame numbers"]
    return replace(
        family,
        arrays=tuple(arrays),
        coordinates=keys,
        time_key=family.time_key if has_times else "",
        boundary="wall" if family.boundary == "config" else family.boundary,
        note=": ".join([_NOTE, ", ".join(missing)]) if missing else _NOTE,
        domain=None if family.boundary == "config" else (1.0, 1.0),
        ups=True,
    )


def ups_parameters(file: h5py.File, family: Family, num: int, used: int) -> dict[str, np.ndarray]:
    """name -> (used,) float64: what `params` and `bc` hold, then attributes and the file's name.

    Args:
        file: Open for reading.
        family: Its family.
        num: Samples of the file.
        used: Samples that are converted.

    Raises:
        ValueError: Parameters that are not finite numbers, one a sample.
    """
    found: dict[str, np.ndarray] = {}
    for group, prefix in (("params", ""), ("bc", "bc_")):
        for key, values in _columns(file, group, num).items():
            found[prefix + _own_name(family, key)] = values[:used]
    others = [parameter for parameter in family.parameters if parameter.name not in found]
    path = Path(file.filename)
    stated = find_parameters(others, path, file.attrs, {}, str(path), required=False)
    return found | {name: np.full(used, value) for name, value in stated.items()}


def _columns(file: h5py.File, group: str, num: int) -> Mapping[str, np.ndarray]:
    """Datasets of a group that hold one number for all samples, or one for each."""
    columns = {}
    node = file.get(group)
    for key, item in node.items() if isinstance(node, h5py.Group) else ():
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub" or item.size not in (1, num):
            logger.warning("%s: not one number a sample, left out", place(node, key))
            continue
        values = np.broadcast_to(read_numbers(node, key).reshape(-1), (num,))
        if not np.isfinite(values).all():
            raise ValueError(f"{place(node, key)} is not finite; correct it, or remove it")
        columns[key] = values
    return columns


def _own_name(family: Family, key: str) -> str:
    """Name of a parameter of the family that has this key, in any case; else the key."""
    names = {name.casefold(): parameter.name for parameter in family.parameters for name in parameter.keys}
    return names.get(key.casefold(), key)
