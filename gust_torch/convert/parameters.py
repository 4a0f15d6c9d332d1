"""Physical parameters of a source, by key: attributes first, then its YAML config, then its file name."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gust_torch.convert.families import Parameter

logger = logging.getLogger(__name__)

# "Nu0.01", "Eta1.e-8", "M0.1": a key directly followed by a number, one of the name's "_" separated tokens.
_TOKEN = re.compile(r"([A-Za-z]+)([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")

# The C loader reads a config ten times faster, which tells with thousands of groups.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: attribute 'config' is not YAML ({str(error).splitlines()[0]})") from error
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
) -> dict[str, float]:
    """Values of `wanted` from the first of attributes, config and file name that has the key.

    Args:
        wanted: The family's parameters.
        path: The source, for its name.
        attributes: HDF5 attributes of the file or group.
        config: Its parsed config; empty where there is none.
        where: File and group, for messages.

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
    return next((mapping[key] for key in mapping if key.casefold() in folded), None)


def _number(value: Any, where: str) -> float:
    """`value` as a finite float; YAML leaves 1e-8 a string, attributes may be arrays of one."""
    try:
        number = float(np.asarray(value).reshape(()).item() if np.size(value) == 1 else "no number")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is {value!r}, expected one number") from error
    if not math.isfinite(number):
        raise ValueError(f"{where} is {value!r}, expected a finite number")
    return number
