"""What a file of a data set says about itself; files that are unfinished or invalid are refused."""

import itertools
import json
import logging
import math
from collections.abc import Mapping
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
        resolution: (times, x[, y]), times being those of the longest trajectory; None without a grid.
        fields: Names of the fields.
        parameters: Names of what is one number for each trajectory.
        conversion: Equal for files of one conversion; None where it is not known.
        record: Goes into the package's manifest: format, version, metadata.
    """

    kind: str
    samples: int
    resolution: tuple[int, ...] | None
    fields: tuple[str, ...]
    parameters: tuple[str, ...]
    conversion: str | None
    record: Mapping[str, object]


def describe(path: Path) -> Description:
    """Describe a file or store.

    Raises:
        ValueError: It is invalid, unfinished or of an unknown kind.
    """
    return _describe_store(path) if path.suffix == ".zarr" else _describe_grid(path)


def _describe_grid(path: Path) -> Description:
    """Return a file of the common HDF5 format."""
    if problems := validate(path):
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        first = problems[0] if problems[0].startswith(str(path)) else f"{path}: {problems[0]}"
        raise ValueError(f"{first}{more}; not packed (python -m solvers.common.hdf5_utils validate {path})")
    info = read_hdf5_info(path)
    with open_file(path) as file:
        if elsewhere := stored_elsewhere(file):
            more = f" and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else ""
            raise ValueError(
                f"{path}: {elsewhere[0]}{more}; a package would lack these values: copy all into one "
                "file, then pack that"
            )
        if not is_complete(file):
            raise ValueError(f"{path}: its writer did not finish (complete is false); finish it, then pack")
        times = info.num_samples
        if schema.TRAJECTORY in file:
            times = int(np.unique(file[schema.TRAJECTORY][: info.num_samples], return_counts=True)[1].max())
        conversion = str(file[_CONVERSION].asstr()[()]) if _CONVERSION in file else None
    *_, (frame, _) = info.fields.values()
    points = frame[:1] if frame[1] == 1 else frame[:2]
    metadata = _json_values(info.metadata)
    record = {
        "format": "hdf5",
        "format_version": metadata.pop("format_version", None),
        "trajectories": info.num_trajectories,
        "frames": info.num_samples,
        "provenance": metadata,
    }
    return Description(
        kind="grid",
        samples=info.num_trajectories,
        resolution=(times, *points),
        fields=tuple(info.fields),
        parameters=tuple(info.parameters),
        conversion=conversion,
        record=record,
    )


def _describe_store(path: Path) -> Description:
    """Return a Zarr store of meshes or particles, ragged or with one group a sample."""
    groups = [name for name in _GRAPH_GROUPS if (path / name).is_dir()]
    if len(groups) != 1:
        raise ValueError(
            f"{path}: expected a Zarr store with one group {' or '.join(_GRAPH_GROUPS)}, found "
            f"{groups or 'none'}; convert it again (scripts/convert_pdebench_multimodal.py)"
        )
    attributes = _attributes(path / groups[0])
    if attributes.pop("layout", "groups") == "ragged":
        layout, samples, version = (
            "ragged",
            attributes.pop("num_samples", None),
            attributes.pop("version", None),
        )
        axes = attributes.pop("axes", {})
    else:
        samples = sum(item.is_dir() for item in (path / groups[0]).iterdir())
        layout, version, axes = "groups", None, {}
    if not isinstance(samples, int) or samples < 1 or not isinstance(axes, dict):
        raise ValueError(f"{path}: an unfinished store, or one without samples; convert it again, then pack")
    if (missing := missing_chunk(path)) is not None:
        raise ValueError(
            f"{missing}: this chunk of an array is missing; copy or convert the store again "
            "(where zeros are meant, write it with write_empty_chunks)"
        )
    attributes.pop("kind", None)
    conversion = {key: attributes[key] for key in ("seed", "fractions") if key in attributes}
    return Description(
        kind=_GRAPH_GROUPS[groups[0]],
        samples=samples,
        resolution=None,
        fields=tuple(sorted(key for key, axis in axes.items() if _is_field(key, axis))),
        parameters=tuple(sorted(key for key, axis in axes.items() if axis == "sample")),
        conversion=json.dumps(conversion) if conversion else None,
        record={
            "format": f"zarr {layout}",
            "format_version": version,
            "trajectories": samples,
            "provenance": attributes,
        },
    )


def missing_chunk(store: Path) -> Path | None:
    """Look for a chunk file that an array of a Zarr store (format 3 or 2) lacks; readers would see zeros."""
    for path in sorted([*store.rglob("zarr.json"), *store.rglob(".zarray")]):
        content = _read_json(path)
        if path.name == "zarr.json" and content.get("node_type") != "array":
            continue
        try:
            shape = content["shape"]
            if path.name == ".zarray":
                chunks, prefix, separator = content["chunks"], "", content.get("dimension_separator", ".")
            else:
                chunks = content["chunk_grid"]["configuration"]["chunk_shape"]
                encoding = content.get("chunk_key_encoding", {"name": "default"})
                default = encoding["name"] == "default"
                prefix = "c" if default else ""
                separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
            grid = [range(-(-size // chunk)) for size, chunk in zip(shape, chunks, strict=True)]
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{path}: damaged ({error}); convert the store again") from error
        for index in itertools.product(*grid):
            parts = [prefix, *map(str, index)] if prefix else list(map(str, index)) or ["0"]
            if not (chunk := path.parent / separator.join(parts)).is_file():
                return chunk
    return None


def _is_field(name: str, axis: object) -> bool:
    """Whether an array holds values on nodes or particles, other than where they are."""
    return axis in ("node", "step") and name not in _GEOMETRY


def _attributes(group: Path) -> dict[str, object]:
    """Attributes of a Zarr group of format 3 or 2.

    Raises:
        ValueError: They cannot be read.
    """
    try:
        if (group / "zarr.json").is_file():
            return dict(_read_json(group / "zarr.json").get("attributes", {}))
        return _read_json(group / ".zattrs") if (group / ".zattrs").is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{group}: damaged attributes ({error}); convert the store again") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises ValueError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error}); convert the store again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: no JSON object; convert the store again")
    return content


def _json_values(values: Mapping[str, object]) -> dict[str, object]:
    """Values that JSON can hold; NaN and infinities as text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def common_kind(sources: Mapping[str, Path], descriptions: Mapping[str, Description]) -> str:
    """Find the kind of all splits, which must be of one data set.

    Raises:
        ValueError: They differ in kind, fields, parameters or grid.
    """
    first, *others = descriptions
    expected = descriptions[first]
    for split in others:
        item = descriptions[split]
        for what, here, there in (
            ("kind", item.kind, expected.kind),
            ("fields", item.fields, expected.fields),
            ("parameters", item.parameters, expected.parameters),
            ("grid", (item.resolution or ())[1:], (expected.resolution or ())[1:]),
        ):
            if here != there:
                raise ValueError(
                    f"{sources[split]}: {what} {here}, {sources[first].name} has {there}; "
                    "convert them together"
                )
        if item.conversion != expected.conversion:
            log.warning(
                "%s and %s come from different conversions; make sure that they share no trajectory",
                sources[split],
                sources[first].name,
            )
    return expected.kind


def facts(descriptions: Mapping[str, Description]) -> dict[str, object]:
    """Metadata as the files say: samples (trajectories), resolution (times, x[, y]), fields, parameters."""
    items = list(descriptions.values())
    facts: dict[str, object] = {"samples": sum(item.samples for item in items)}
    resolutions = [item.resolution for item in items if item.resolution is not None]
    if resolutions:
        facts["resolution"] = list(max(resolutions))
    for key, names in (("fields", items[0].fields), ("parameters", items[0].parameters)):
        if names:
            facts[key] = list(names)
    return facts
