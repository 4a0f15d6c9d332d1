"""What a file of a data set says about itself; files that are unfinished or invalid are refused."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solvers.common.hdf5 import schema
from solvers.common.hdf5.reader import is_complete
from solvers.common.hdf5.storage import stored_elsewhere
from solvers.common.hdf5_utils import open_file, read_hdf5_info, validate

# Groups of the Zarr stores (docs/formats.md) and what they hold.
_GRAPH_GROUPS = {"mesh_poisson": "mesh", "particles_advect": "particles"}
_GEOMETRY = ("coords", "positions")
_CONVERSION = "split/manifest"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """One file of a data set.

    Attributes:
        kind: grid, mesh or particles.
        samples: Trajectories; one mesh is one.
        times: Frames of the longest trajectory; 0 without a grid, whose points (x[, y]) `grid` has.
        parameters: Names of what is one number for each trajectory.
        conversion: Equal for files of one conversion; None where it is not known.
        record: Goes into the package's manifest: format, version, metadata.
    """

    kind: str
    samples: int
    times: int
    grid: tuple[int, ...]
    fields: tuple[str, ...]
    parameters: tuple[str, ...]
    conversion: str | None
    record: Mapping[str, object]


def describe(path: Path) -> Description:
    """Describe an HDF5 file or a Zarr store; a ValueError says that it is invalid or unfinished."""
    return _describe_store(path) if path.suffix == ".zarr" else _describe_grid(path)


def _describe_grid(path: Path) -> Description:
    if problems := validate(path):
        first = problems[0] if problems[0].startswith(str(path)) else f"{path}: {problems[0]}"
        more = f" and {len(problems) - 1} more problems (hdf5_utils validate)" if len(problems) > 1 else ""
        raise ValueError(f"{first}{more}; not packed")
    info = read_hdf5_info(path)
    with open_file(path) as file:
        if elsewhere := stored_elsewhere(file):
            raise ValueError(f"{path}: {elsewhere[0]}; copy all into one file, then pack that")
        if not is_complete(file):
            raise ValueError(f"{path}: its writer did not finish (complete is false); finish it, then pack")
        times = info.num_samples
        if schema.TRAJECTORY in file:
            times = int(np.unique(file[schema.TRAJECTORY][: info.num_samples], return_counts=True)[1].max())
        conversion = str(file[_CONVERSION].asstr()[()]) if _CONVERSION in file else None
    *_, (frame, _) = info.fields.values()
    metadata = {  # JSON has no NaN and no infinities
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in info.metadata.items()
    }
    return Description(
        kind="grid",
        samples=info.num_trajectories,
        times=times,
        grid=frame[:1] if frame[1] == 1 else frame[:2],
        fields=tuple(info.fields),
        parameters=tuple(info.parameters),
        conversion=conversion,
        record={
            "format": "hdf5",
            "format_version": metadata.pop("format_version", None),
            "trajectories": info.num_trajectories,
            "frames": info.num_samples,
            "provenance": metadata,
        },
    )


def _describe_store(path: Path) -> Description:
    """Describe a Zarr store of meshes or particles, ragged or with one group a sample."""
    try:
        import zarr
    except ImportError as error:
        raise ValueError(f"{path}: zarr is not installed; pip install 'gust_torch[graphs]'") from error
    groups = [name for name in _GRAPH_GROUPS if (path / name).is_dir()]
    if len(groups) != 1:
        names = " or ".join(_GRAPH_GROUPS)
        raise ValueError(f"{path}: expected a Zarr store with one group {names}; convert it again")
    try:
        group = zarr.open_group(path / groups[0], mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        is_ragged = attributes.pop("layout", "groups") == "ragged"
        samples = attributes.pop("num_samples") if is_ragged else len(list(group.group_keys()))
        version = attributes.pop("version", None) if is_ragged else None
        axes = sorted(attributes.pop("axes", {}).items()) if is_ragged else []
        if not isinstance(samples, int) or samples < 1:
            raise ValueError("no samples")
        for _, item in group.members(max_depth=None):
            if isinstance(item, zarr.Array) and item.nchunks_initialized < item.nchunks:  # read as zeros
                raise ValueError(f"a chunk of {item.path!r} is missing; zeros need write_empty_chunks")
    except (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: unfinished or damaged ({error}); convert it again, then pack") from error
    attributes.pop("kind", None)
    conversion = {key: attributes[key] for key in ("seed", "fractions") if key in attributes}
    return Description(
        kind=_GRAPH_GROUPS[groups[0]],
        samples=samples,
        times=0,
        grid=(),
        fields=tuple(key for key, axis in axes if axis in ("node", "step") and key not in _GEOMETRY),
        parameters=tuple(key for key, axis in axes if axis == "sample"),
        conversion=json.dumps(conversion) if conversion else None,
        record={
            "format": f"zarr {'ragged' if is_ragged else 'groups'}",
            "format_version": version,
            "trajectories": samples,
            "provenance": attributes,
        },
    )


def summarize(described: Sequence[tuple[Path, Description]]) -> tuple[str, dict[str, object]]:
    """Find the kind of all splits, and metadata as the files say: samples, resolution, fields, parameters.

    A ValueError says that they differ in kind, fields, parameters or grid: they are not of one data set.
    """
    (first, expected), *others = described
    for path, item in others:
        for what in ("kind", "fields", "parameters", "grid"):
            if (here := getattr(item, what)) != (there := getattr(expected, what)):
                raise ValueError(f"{path}: {what} {here}, {first.name} has {there}; convert them together")
        if item.conversion != expected.conversion:
            text = "%s and %s come from different conversions; make sure that they share no trajectory"
            log.warning(text, path, first.name)
    found = {
        "samples": sum(item.samples for _, item in described),
        "resolution": expected.grid and [max(item.times for _, item in described), *expected.grid],
        "fields": list(expected.fields),
        "parameters": list(expected.parameters),
    }
    return expected.kind, {key: value for key, value in found.items() if value}
