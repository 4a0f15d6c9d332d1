"""Grids of the universal simulator: `data` with a component axis, `params/*`, `bc/*`, and maybe `targets`.

Its converter keeps one dataset of a PDEBench file, without coordinates and times. What is not stored is that
of the release: cells of the unit box, one unit a cell for Navier-Stokes; times are frame numbers.
"""

import logging
from dataclasses import replace

import h5py
import numpy as np

from gust_torch.convert.families import Array, Family
from gust_torch.convert.header import place, read_numbers

logger = logging.getLogger(__name__)

_FIELDS = {
    # family: field of `data` by its components, axes without the component axis, field of `targets`
    "advection1d": ({1: "u"}, "ntx", "targets"),
    "burgers1d": ({1: "u"}, "ntx", "targets"),
    "darcy2d": ({1: "nu"}, "nxy", "u"),
    "navier_stokes2d": ({1: "u", 2: "velocity"}, "ntxy", "targets"),
}


def ups_form(family: Family, file: h5py.File) -> Family | None:
    """Return a family as the universal simulator stores it; None where a file is none of its."""
    data, targets = file.get("data"), file.get("targets")
    if family.name not in _FIELDS or not isinstance(data, h5py.Dataset):
        return None
    fields, axes, target = _FIELDS[family.name]
    has_axis = data.ndim == len(axes) + 1
    components = data.shape[-1] if has_axis else 1
    if components not in fields:
        raise ValueError(
            f"{place(data)} has {components} components on its last axis, expected "
            f"{' or '.join(map(str, fields))} for {family.name}; convert the released files instead"
        )
    stored = axes + ("c" if components > 1 else "1") * has_axis
    arrays = [Array("data", stored, (fields[components],))]
    if isinstance(targets, h5py.Dataset) and targets.shape == data.shape:
        arrays.append(Array("targets", stored, (target,)))
    keys = tuple(f"{axis}-coordinate" for axis in "xy" if axis in axes)
    keys = keys if all(key in file for key in keys) else ()
    time_key = family.time_key if family.time_key and family.time_key in file else ""
    missing = [] if keys else ["coordinates are those of the release"]
    missing += ["times are frame numbers"] if family.time_key and not time_key else []
    one_unit_a_cell = family.boundary[0] == "config"
    return replace(
        family,
        arrays=tuple(arrays),
        coordinates=keys,
        time_key=time_key,
        boundary=("wall", family.boundary[1]) if one_unit_a_cell else family.boundary,
        note=": ".join(["a file of the universal simulator", *([", ".join(missing)] if missing else [])]),
        domain=None if one_unit_a_cell else (1.0, 1.0),
    )


def ups_parameters(file: h5py.File, family: Family, num: int) -> dict[str, np.ndarray]:
    """name -> (num,) float64: what `params` and `bc` hold for one or all of `num` samples of the file."""
    own_names = {name.casefold(): name for name in family.parameters}
    found: dict[str, np.ndarray] = {}
    for group, prefix in (("params", ""), ("bc", "bc_")):
        node = file.get(group)
        for key, item in node.items() if isinstance(node, h5py.Group) else ():
            if (
                not isinstance(item, h5py.Dataset)
                or item.dtype.kind not in "fiub"
                or item.size not in (1, num)
            ):
                logger.warning("%s: not one number a sample, left out", place(node, key))
                continue
            values = read_numbers(node, key).reshape(-1)
            if not np.isfinite(values).all():
                raise ValueError(f"{place(item)} is not finite; correct it, or remove it")
            found[prefix + own_names.get(key.casefold(), key)] = np.broadcast_to(values, (num,))
    return found
